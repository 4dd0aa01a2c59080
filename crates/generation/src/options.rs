//! What and how much to generate.

use crate::{EOS, GenerationError, Sampling};

/// What and how much to generate after a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Tokens written, at most.
    pub max_tokens: usize,
    /// The id that ends a sequence; it is not part of the output. `None` writes on through it.
    pub eos: Option<u32>,
    /// Size of the tokenizer's vocabulary: [`PAD`](crate::PAD) and the ids from here on (rows that
    /// only round up the model's tables) are never written. `None` allows every id of the model.
    pub allowed_vocab: Option<usize>,
    /// Index of the prompt, which with the seed its draws depend on. Of several prompts that share
    /// their options, the index of the first.
    pub first_prompt: usize,
}

impl Default for Options {
    /// Greedy, 128 tokens, until [`EOS`].
    fn default() -> Self {
        Self {
            sampling: Sampling::greedy(),
            max_tokens: 128,
            eos: Some(EOS),
            allowed_vocab: None,
            first_prompt: 0,
        }
    }
}

impl Options {
    /// # Errors
    /// When a value is out of its range.
    pub fn check(&self) -> Result<(), GenerationError> {
        if self.allowed_vocab == Some(0) {
            return Err(GenerationError::NothingAllowed);
        }
        self.sampling.check()
    }
}
