//! What can go wrong.

/// An evaluation that cannot be done as asked.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// An id the model has no embedding for.
    #[error(
        "token id {id} is outside the model's vocabulary of {vocab}; encode the text with the \
         tokenizer the model was trained with"
    )]
    Id {
        /// The id.
        id: u32,
        /// Rows of the model's token tables.
        vocab: usize,
    },
    /// A request that asks for nothing.
    #[error("a continuation without tokens has no log-likelihood")]
    EmptyContinuation,
    /// A continuation the model cannot see whole.
    #[error(
        "a continuation of {tokens} tokens is longer than the context of {context}; give a larger \
         --context, or cut the text into rolling windows"
    )]
    TooLong {
        /// Tokens of the continuation.
        tokens: usize,
        /// Tokens of context.
        context: usize,
    },
    /// A setting of zero.
    #[error("{0}: must be at least 1")]
    Zero(&'static str),
    /// A model and a configuration of different families.
    #[error("the model is not of the {0} family its configuration describes")]
    Family(&'static str),
    /// Logits that are no numbers.
    #[error(
        "the model's logits are not finite; its weights are damaged or its training diverged: use \
         an earlier checkpoint"
    )]
    NotFinite,
    /// Numbers that could not be read from the device.
    #[error("reading log-likelihoods from the device: {0}")]
    Device(String),
}
