//! The scorer: batches of requests through a model.

use std::cmp::Reverse;

use block_transformer_collectives::{Alone, Collective, share_in_order};
use block_transformer_family::{CacheFormat, Family, FamilyConfig};
use block_transformer_layers::{
    TargetScore, TokenLogProbs, is_attention_batch_invariant, score_logits, score_targets,
    score_token_logits, score_tokens,
};
use burn::tensor::{Device, Tensor};

use crate::error::EvalError;
use crate::score::alignment::Alignment;
use crate::score::cached;
use crate::score::request::{BatchScores, Request, Scored};
use crate::score::rows::{Input, hidden};

/// Tokens per batch, unless [`Scorer::with_batch_tokens`] sets another number.
pub const BATCH_TOKENS: usize = 4096;

/// Computes log-likelihoods with a model of any family.
#[derive(Clone, Debug)]
pub struct Scorer<M: Family> {
    model: M,
    device: Device,
    vocab_size: usize,
    block_length: usize,
    context: usize,
    batch_tokens: usize,
    alignment: Alignment,
    /// Through caches in this format; `None` for whole sequences.
    cache: Option<CacheFormat>,
}

impl<M: Family> Scorer<M> {
    /// A scorer of `model`, on the device of the model. The context of the scorer is the context in
    /// the model's configuration.
    pub fn new(model: &M) -> Self {
        // with autodiff, every operation would be recorded
        let (model, config) = (model.valid(), model.config());
        Self {
            device: model.head().device(),
            vocab_size: config.vocab_size(),
            block_length: config.block_length(),
            context: config.max_position_embeddings(),
            batch_tokens: BATCH_TOKENS,
            alignment: Alignment::default(),
            cache: None,
            model,
        }
    }

    /// Sets the context: the largest number of tokens that the model reads before the last token
    /// that it predicts.
    ///
    /// # Errors
    /// When `context` is 0.
    pub fn with_context(self, context: usize) -> Result<Self, EvalError> {
        match context {
            0 => Err(EvalError::Zero("context")),
            _ => Ok(Self { context, ..self }),
        }
    }

    /// Sets the size of a batch in tokens, padding included. A request that is longer than a batch
    /// is computed alone. Apart from rounding, scores do not depend on the size.
    ///
    /// # Errors
    /// When `tokens` is 0.
    pub fn with_batch_tokens(self, tokens: usize) -> Result<Self, EvalError> {
        match tokens {
            0 => Err(EvalError::Zero("batch tokens")),
            _ => Ok(Self { batch_tokens: tokens, ..self }),
        }
    }

    /// Computes scores by the path of decoding, with KV caches in `cache`, instead of whole sequences. In f32,
    /// the scores differ by rounding only.
    ///
    /// # Errors
    /// [`EvalError::Cache`] for integers on other devices than burn-flex, and for models with a T5 token
    /// decoder.
    pub fn with_cache(self, cache: CacheFormat) -> Result<Self, EvalError> {
        let stores = cache != CacheFormat::Int8 || is_attention_batch_invariant(&self.device);
        if !stores || !cached::is_supported(&self.model, &self.device) {
            return Err(EvalError::Cache);
        }
        Ok(Self { cache: Some(cache), ..self })
    }

    /// Sets the place of contexts and continuations in blocks. It changes nothing for a model without blocks.
    #[must_use]
    pub fn with_alignment(self, alignment: Alignment) -> Self {
        Self { alignment, ..self }
    }

    /// The context in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens per block of the model; 1 without blocks.
    pub fn block_length(&self) -> usize {
        self.block_length
    }

    /// Scores requests, in the order given. After each batch, `progress` gets the number of requests
    /// that are done and the number of all requests.
    ///
    /// A vanilla model reads the tokens that the EleutherAI harness feeds a Hugging Face model: EOS
    /// for an empty context, and no more than the last `context + 1` tokens of context and
    /// continuation; the last of these is a target only. A block model reads the same tokens, in blocks by the
    /// [`Alignment`].
    ///
    /// # Errors
    /// When a continuation is empty or longer than the context, an id is outside the vocabulary,
    /// the model's logits are not finite, or the device fails.
    pub fn score(
        &self,
        requests: &[Request],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Scored>, EvalError> {
        let mut scored = vec![Scored::default(); requests.len()];
        let mut done = 0;
        self.score_batches(requests, 0, &mut |batch| {
            done += batch.len();
            batch.into_iter().for_each(|(i, one)| scored[i] = one);
            progress(done as u64, requests.len() as u64);
            Ok(())
        })?;
        Ok(scored)
    }

    /// Scores requests batch by batch: `on_batch` gets the scores of each batch with the indices of their
    /// requests. The batches and their order depend on the requests and the scorer's settings only. The first
    /// `done` requests in this order are left out. An error of `on_batch` ends the scoring.
    ///
    /// # Errors
    /// As [`score`](Self::score), and when `on_batch` fails.
    pub fn score_batches(
        &self,
        requests: &[Request],
        done: usize,
        on_batch: &mut dyn FnMut(Vec<(usize, Scored)>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        self.score_batches_on(&Alone, requests, done, on_batch)
    }

    /// [`score_batches`](Self::score_batches) by several ranks, which score the same batches as one rank. All ranks
    /// get the scores of all batches.
    ///
    /// # Errors
    /// As [`score_batches`](Self::score_batches), and when a rank has left or other requests.
    pub fn score_batches_on(
        &self,
        ranks: &dyn Collective,
        requests: &[Request],
        done: usize,
        on_batch: &mut dyn FnMut(Vec<(usize, Scored)>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        requests.iter().try_for_each(|request| self.check(request))?;
        let inputs: Vec<Input<'_>> =
            requests.iter().map(|request| Input::new(request, self.context)).collect();
        let order = self.order_of(&inputs);
        let batches = self.batches(&inputs, &order[done.min(order.len())..]).map(Ok);
        let score = |batch: &&[usize]| {
            let rows: Vec<&Input<'_>> = batch.iter().map(|&i| &inputs[i]).collect();
            Ok(BatchScores(self.batch(&rows)?))
        };
        share_in_order(ranks, batches, score, |batch, BatchScores(scores)| {
            on_batch(batch.iter().copied().zip(scores).collect())
        })
    }

    /// The log-probability of each token of the continuations, and of the `top` most likely tokens at its place, in
    /// the order of `requests`. The batches and the log-probabilities are those of [`score`](Self::score). The first of
    /// `top` is the greedy choice.
    ///
    /// # Errors
    /// As [`score`](Self::score).
    pub fn score_tokens(
        &self,
        requests: &[Request],
        top: usize,
    ) -> Result<Vec<Vec<TokenLogProbs>>, EvalError> {
        requests.iter().try_for_each(|request| self.check(request))?;
        let inputs: Vec<Input<'_>> =
            requests.iter().map(|request| Input::new(request, self.context)).collect();
        let order = self.order_of(&inputs);
        let mut scored = vec![Vec::new(); requests.len()];
        for batch in self.batches(&inputs, &order) {
            let rows: Vec<&Input<'_>> = batch.iter().map(|&i| &inputs[i]).collect();
            let mut scores = self.token_batch(&rows, top)?.into_iter();
            for (&i, input) in batch.iter().zip(rows) {
                scored[i] = scores.by_ref().take(input.continuation.len()).collect();
            }
        }
        Ok(scored)
    }

    /// The order in which [`score_batches`](Self::score_batches) scores requests.
    ///
    /// # Errors
    /// When a request cannot be scored.
    pub(crate) fn order(&self, requests: &[Request]) -> Result<Vec<usize>, EvalError> {
        requests.iter().try_for_each(|request| self.check(request))?;
        let inputs: Vec<Input<'_>> =
            requests.iter().map(|request| Input::new(request, self.context)).collect();
        Ok(self.order_of(&inputs))
    }

    fn order_of(&self, inputs: &[Input<'_>]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        // the longest requests come first, so that a batch that is too large for the memory fails
        // at once
        order.sort_by_key(|&i| Reverse(self.width(&inputs[i])));
        order
    }

    /// Splits indices of `inputs` into batches.
    fn batches<'a>(
        &'a self,
        inputs: &'a [Input<'_>],
        mut rest: &'a [usize],
    ) -> impl Iterator<Item = &'a [usize]> {
        std::iter::from_fn(move || {
            let first = rest.first()?;
            let fit = (self.batch_tokens / self.width(&inputs[*first])).clamp(1, rest.len());
            let (batch, after) = rest.split_at(fit);
            rest = after;
            Some(batch)
        })
    }

    /// Number of positions that the model reads, including the padding to whole blocks. The last block is a
    /// target only.
    fn width(&self, input: &Input<'_>) -> usize {
        input.place(self.block_length, self.alignment).last * self.block_length
    }

    fn check(&self, request: &Request) -> Result<(), EvalError> {
        let (vocab_size, tokens) = (self.vocab_size, request.continuation.len());
        let mut ids = request.context.iter().chain(&request.continuation);
        if let Some(&id) = ids.find(|&&id| id as usize >= vocab_size) {
            return Err(EvalError::TokenId { id, vocab_size });
        }
        match tokens {
            0 => Err(EvalError::EmptyContinuation),
            _ if tokens > self.context => Err(EvalError::TooLong { tokens, context: self.context }),
            _ => Ok(()),
        }
    }

    fn batch(&self, inputs: &[&Input<'_>]) -> Result<Vec<Scored>, EvalError> {
        let targets = targets(inputs);
        let (model, l, at, device) = (&self.model, self.block_length, self.alignment, &self.device);
        let scores = match self.cache {
            Some(format) => cached::scores(model, l, at, inputs, format, device, score_logits)?,
            None => score_targets(hidden(model, l, at, inputs, device), model.head(), &targets)
                .map_err(EvalError::Device)?,
        };
        if scores.iter().any(|score| !score.log_prob.is_finite()) {
            return Err(EvalError::NotFinite);
        }
        let mut scores = scores.into_iter().zip(targets);
        let one = |input: &&Input<'_>| {
            let own: Vec<(TargetScore, u32)> =
                scores.by_ref().take(input.continuation.len()).collect();
            Scored {
                log_probs: own.iter().map(|(score, _)| score.log_prob).collect(),
                greedy: own.iter().all(|(score, target)| score.top == *target),
            }
        };
        Ok(inputs.iter().map(one).collect())
    }

    fn token_batch(
        &self,
        inputs: &[&Input<'_>],
        top: usize,
    ) -> Result<Vec<TokenLogProbs>, EvalError> {
        let targets = targets(inputs);
        let (model, l, at, device) = (&self.model, self.block_length, self.alignment, &self.device);
        let scores = match self.cache {
            Some(format) => {
                let score =
                    |logits: Tensor<2>, targets: &[u32]| score_token_logits(logits, targets, top);
                cached::scores(model, l, at, inputs, format, device, score)?
            }
            None => score_tokens(hidden(model, l, at, inputs, device), model.head(), &targets, top)
                .map_err(EvalError::Device)?,
        };
        if scores.iter().any(|score| !score.log_prob.is_finite()) {
            return Err(EvalError::NotFinite);
        }
        Ok(scores)
    }
}

/// The tokens of all continuations.
fn targets(inputs: &[&Input<'_>]) -> Vec<u32> {
    inputs.iter().flat_map(|input| input.continuation).copied().collect()
}
