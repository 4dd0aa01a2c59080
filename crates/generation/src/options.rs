//! Options of a sequence.

use block_transformer_text::EOS;

use crate::error::GenerationError;
use crate::event::Finish;
use crate::sampling::Sampling;

/// The largest absolute value of a bias.
const MOST_BIAS: f32 = 100.0;

/// Sampling and end of a continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Maximum number of new tokens.
    pub max_tokens: usize,
    /// The id that ends a sequence; it is not part of the output. With `None` no id ends it.
    pub eos: Option<u32>,
    /// More ids that end a sequence ([`Finish::Stop`](crate::Finish::Stop)) and are not part of the output.
    pub stop_tokens: Vec<u32>,
    /// Ids with the values, from -100 to 100, that are added to their logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Reports the log-probability of each token and of this many of the most likely tokens at its position.
    /// `None` reports none.
    pub logprobs: Option<usize>,
    /// Size of the tokenizer's vocabulary. [`PAD`](crate::PAD) and the ids from this value on,
    /// which only round up the size of the model's tables, are never chosen. `None` allows every id
    /// of the model.
    pub allowed_vocab: Option<usize>,
    /// Stream of the random number generator. The draws depend on it and on [`Sampling::seed`].
    /// Errors report it as the index of the prompt. [`generate`](crate::generate()) gives prompt
    /// `i` the stream `rng_stream + i`.
    pub rng_stream: usize,
}

impl Default for Options {
    /// Greedy decoding of at most 128 tokens, until [`EOS`].
    fn default() -> Self {
        Self {
            sampling: Sampling::greedy(),
            max_tokens: 128,
            eos: Some(EOS),
            stop_tokens: Vec::new(),
            logit_bias: Vec::new(),
            logprobs: None,
            allowed_vocab: None,
            rng_stream: 0,
        }
    }
}

impl Options {
    /// Checks every value.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn check(&self) -> Result<(), GenerationError> {
        if self.allowed_vocab == Some(0) {
            return Err(GenerationError::NothingAllowed);
        }
        let mut bias = self.logit_bias.iter();
        if let Some(&(id, bias)) = bias.find(|(_, bias)| !(-MOST_BIAS..=MOST_BIAS).contains(bias)) {
            return Err(GenerationError::LogitBias { id, bias });
        }
        self.sampling.check()
    }

    /// Returns the options with the random stream of the prompt at `index`.
    pub(crate) fn for_prompt(&self, index: usize) -> Self {
        Self { rng_stream: self.rng_stream + index, ..self.clone() }
    }
}

/// The tokens that end a sequence.
#[derive(Clone, Debug)]
pub(crate) struct EndTokens {
    eos: Option<u32>,
    stop: Vec<u32>,
}

impl EndTokens {
    pub(crate) fn new(options: &Options) -> Self {
        Self { eos: options.eos, stop: options.stop_tokens.clone() }
    }

    /// The reason for an end after `token`.
    pub(crate) fn finish(&self, token: u32) -> Option<Finish> {
        if self.eos == Some(token) {
            return Some(Finish::Eos);
        }
        self.stop.contains(&token).then_some(Finish::Stop)
    }
}
