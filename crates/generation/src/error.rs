//! What can go wrong.

use block_transformer_text::TextError;

/// Generation that cannot be done as asked.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// A temperature that is no temperature.
    #[error("--temperature {0}: must be 0 (greedy) or a positive number")]
    Temperature(f64),
    /// A `top_k` of zero.
    #[error("--top-k 0: must be at least 1; leave it out to keep every token")]
    TopK,
    /// A `top_p` outside (0, 1].
    #[error("--top-p {0}: must be above 0 and at most 1")]
    TopP(f64),
    /// An empty stop string, which every text contains.
    #[error("--stop: a stop string must not be empty")]
    EmptyStop,
    /// No id may be written.
    #[error("the vocabulary to write from is empty")]
    NothingAllowed,
    /// An id the model has no embedding for.
    #[error(
        "prompt {prompt}: token id {id} is outside the model's vocabulary of {vocab}; encode it \
         with the tokenizer the model was trained with"
    )]
    PromptId {
        /// Index of the prompt.
        prompt: usize,
        /// The id.
        id: u32,
        /// Rows of the model's token tables.
        vocab: usize,
    },
    /// A tokenizer with ids the model has no embedding for.
    #[error(
        "the tokenizer has {tokenizer} ids and the model's vocabulary is {model}: use the \
         tokenizer the model was trained with"
    )]
    Vocabulary {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's token tables.
        model: usize,
    },
    /// A prompt that cannot be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// More positions than a cache can have.
    #[error("--max-tokens {0}: a sequence has {most} positions at most; write fewer", most = i32::MAX)]
    MaxTokens(usize),
    /// More tokens than a sequence of an engine may have.
    #[error(
        "prompt {prompt}: {tokens} tokens with what is to be written, and there is room for {limit}; \
         shorten it, or write less (--max-tokens)"
    )]
    TooLong {
        /// Index of the prompt.
        prompt: usize,
        /// Tokens of prompt and continuation.
        tokens: usize,
        /// What [`Limits`](crate::Limits) say.
        limit: usize,
    },
    /// Limits that leave room for nothing.
    #[error("an engine needs room for a sequence of two tokens at least")]
    NoRoom,
    /// Less memory than one sequence takes.
    #[error(
        "--memory: {given} bytes hold no sequence of {tokens} tokens; that takes {needed} bytes, of \
         which {weights} are the model's weights: give more, or write fewer tokens"
    )]
    Memory {
        /// Bytes that may be used.
        given: u64,
        /// Tokens of a sequence.
        tokens: usize,
        /// Bytes that one such sequence takes.
        needed: u64,
        /// Bytes of the weights.
        weights: u64,
    },
    /// A model and a configuration of different families.
    #[error("the model is not of the {0} family its configuration describes")]
    Family(&'static str),
    /// Logits that are no numbers.
    #[error(
        "prompt {prompt}: the model's logits are not finite; its weights are damaged or its \
         training diverged: use an earlier checkpoint"
    )]
    NotFinite {
        /// Index of the prompt.
        prompt: usize,
    },
    /// Logits that could not be read from the device.
    #[error("reading logits from the device: {0}")]
    Device(String),
}
