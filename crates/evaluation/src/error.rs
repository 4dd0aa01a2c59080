//! What can go wrong.

use std::path::PathBuf;

use block_transformer_text::TextError;

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
    /// A continuation that is no token of its own.
    #[error("the tokenizer makes no token of {text:?} where it stands: it cannot be scored")]
    NoTokens {
        /// The continuation.
        text: String,
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
    /// Not a task.
    #[error("--tasks {name}: no such task; did you mean `{nearest}`? Tasks: {known}")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// The task most like it.
        nearest: String,
        /// Every task.
        known: String,
    },
    /// A task file that cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of a task file that is no item.
    #[error("{path}:{line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A task file that is not what it must be.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A text that cannot be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
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
