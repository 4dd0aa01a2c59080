//! Log-likelihoods of continuations, for either family.

use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig};
use burn::module::Module;
use burn::tensor::Device;

use crate::EvalError;
use crate::logits::score_targets;
use crate::rows::{self, truncated, width};

/// What to score: `continuation` where it follows `context`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Token ids in front; none stands for EOS alone.
    pub context: Vec<u32>,
    /// Token ids to score, at least one.
    pub continuation: Vec<u32>,
}

/// How likely a continuation is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// Log-probability in nats of each token, given all before it.
    pub log_probs: Vec<f64>,
    /// Whether each token is the most probable one of its place.
    pub greedy: bool,
}

impl Scored {
    /// Log-likelihood of the continuation in nats.
    pub fn sum(&self) -> f64 {
        self.log_probs.iter().sum()
    }
}

/// Scores requests with a model.
#[derive(Clone, Debug)]
pub struct Scorer<'a> {
    model: LanguageModel,
    config: &'a ModelConfig,
    device: Device,
    context: usize,
    batch_tokens: usize,
}

impl<'a> Scorer<'a> {
    /// Tokens computed together, unless told otherwise.
    pub const BATCH_TOKENS: usize = 4096;

    /// A scorer of `model`, which lives on `device`, with the context it was trained with.
    ///
    /// # Errors
    /// When the model is not of the family its configuration describes.
    pub fn new(
        model: &LanguageModel,
        config: &'a ModelConfig,
        device: &Device,
    ) -> Result<Self, EvalError> {
        if model.config().family() != config.family() {
            return Err(EvalError::Family(config.family()));
        }
        let context = config.max_position_embeddings();
        // under autodiff every step would be recorded
        let (model, device) = (model.valid(), device.clone().without_autodiff());
        Ok(Self { model, config, device, context, batch_tokens: Self::BATCH_TOKENS })
    }

    /// The scorer with another context, in tokens.
    ///
    /// # Errors
    /// When it is 0.
    pub fn with_context(self, context: usize) -> Result<Self, EvalError> {
        match context {
            0 => Err(EvalError::Zero("--context")),
            _ => Ok(Self { context, ..self }),
        }
    }

    /// The scorer with batches of up to `tokens` tokens, padding included. A request that alone is
    /// longer is computed alone. Scores do not depend on it but for rounding.
    ///
    /// # Errors
    /// When it is 0.
    pub fn with_batch_tokens(self, tokens: usize) -> Result<Self, EvalError> {
        match tokens {
            0 => Err(EvalError::Zero("--batch-tokens")),
            _ => Ok(Self { batch_tokens: tokens, ..self }),
        }
    }

    /// Tokens of context: how many a model reads at most before the last token it predicts.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Scores every request, in the order given; `done` is told how many each batch finishes.
    ///
    /// A vanilla model reads context and continuation as the EleutherAI harness feeds a Hugging
    /// Face model: EOS for an empty context, and what exceeds the model's context by more than the
    /// last token is cut from the left. A block model reads the same tokens, the context padded on
    /// the left to end at a block boundary as generation does, so that the continuation starts a
    /// block.
    ///
    /// # Errors
    /// When a request is empty, too long or has an id the model does not know, or the model's
    /// logits are not finite.
    pub fn score(
        &self,
        requests: &[Request],
        mut done: impl FnMut(usize),
    ) -> Result<Vec<Scored>, EvalError> {
        requests.iter().try_for_each(|request| self.check(request))?;
        let inputs: Vec<(Vec<u32>, &[u32])> =
            requests.iter().map(|request| truncated(request, self.context)).collect();
        let width = |&i: &usize| {
            let (seen, rest) = &inputs[i];
            width(seen.len(), rest.len(), self.config.block_length())
        };
        // the longest first, so that a batch that is too large shows at once
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(width(i)));
        let mut scored = vec![Scored::default(); inputs.len()];
        let mut rest = &order[..];
        while let Some(first) = rest.first() {
            let fit = (self.batch_tokens / width(first)).clamp(1, rest.len());
            let (batch, after) = rest.split_at(fit);
            for (&i, one) in batch.iter().zip(self.batch(batch.iter().map(|&i| &inputs[i]))?) {
                scored[i] = one;
            }
            done(batch.len());
            rest = after;
        }
        Ok(scored)
    }

    fn check(&self, request: &Request) -> Result<(), EvalError> {
        let (vocab, tokens) = (self.config.vocab_size(), request.continuation.len());
        let mut ids = request.context.iter().chain(&request.continuation);
        if let Some(&id) = ids.find(|&&id| id as usize >= vocab) {
            return Err(EvalError::Id { id, vocab });
        }
        match tokens {
            0 => Err(EvalError::EmptyContinuation),
            _ if tokens > self.context => Err(EvalError::TooLong { tokens, context: self.context }),
            _ => Ok(()),
        }
    }

    fn batch<'b>(
        &self,
        inputs: impl Iterator<Item = &'b (Vec<u32>, &'b [u32])>,
    ) -> Result<Vec<Scored>, EvalError> {
        let inputs: Vec<_> = inputs.cloned().collect();
        let hidden = rows::hidden(&self.model, self.config.block_length(), &inputs, &self.device);
        let targets: Vec<u32> = inputs.iter().flat_map(|(_, rest)| rest.iter().copied()).collect();
        let mut scores = score_targets(hidden, self.model.head(), &targets)?.into_iter();
        let one = |(_, rest): &(Vec<u32>, &[u32])| {
            let scores: Vec<_> = scores.by_ref().take(rest.len()).collect();
            Scored {
                log_probs: scores.iter().map(|score| score.log_prob).collect(),
                greedy: scores.iter().all(|score| score.greedy),
            }
        };
        Ok(inputs.iter().map(one).collect())
    }
}
