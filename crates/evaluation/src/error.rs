//! Errors of evaluations.

use std::path::{Path, PathBuf};

use block_transformer_checkpoint::CheckpointError;
use block_transformer_collectives::CollectiveError;
use block_transformer_datasets::DatasetError;
use block_transformer_files::FileError;
use block_transformer_text::TextError;
use burn::tensor::ExecutionError;

/// An evaluation that cannot start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A setting that must not be 0.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A token id that the model has no embedding for.
    #[error(
        "token id {id} is outside the model's vocabulary of {vocab_size}; encode the text with the \
         tokenizer the model was trained with"
    )]
    TokenId {
        /// The id.
        id: u32,
        /// Ids in the model's vocabulary.
        vocab_size: usize,
    },
    /// A tokenizer with ids that the model has no embedding for.
    #[error(
        "the tokenizer has {tokenizer} ids and the model's vocabulary is {model}; use the \
         tokenizer the model was trained with"
    )]
    Vocabulary {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Ids in the model's vocabulary.
        model: usize,
    },
    /// KV caches that cannot be used for scores.
    #[error(
        "scores through KV caches need a model whose token decoder is not a T5 stack, and integers need the \
         device flex; compute them without caches"
    )]
    Cache,
    /// A continuation without tokens.
    #[error("a continuation without tokens has no log-likelihood")]
    EmptyContinuation,
    /// A continuation that is longer than the context.
    #[error(
        "a continuation of {tokens} tokens is longer than the context of {context}; use a model with a \
         larger context, or leave out the text or the task"
    )]
    TooLong {
        /// Tokens of the continuation.
        tokens: usize,
        /// Tokens of context.
        context: usize,
    },
    /// A continuation that the tokenizer merges into the last token of the context, so that no
    /// token is left to score.
    #[error("the tokenizer produces no token for {0:?} after its context: it cannot be scored")]
    NoTokens(String),
    /// Logits that are infinite or not a number.
    #[error(
        "the model's logits are not finite; its weights are damaged or its training diverged: use \
         an earlier checkpoint"
    )]
    NotFinite,
    /// A failure to read results from the device.
    #[error("cannot read log-likelihoods from the device")]
    Device(#[source] ExecutionError),

    /// The given name is not the name of a task.
    #[error("no task is called `{name}`; did you mean `{nearest}`? Tasks: {known}")]
    UnknownTask {
        /// The name given.
        name: String,
        /// The most similar name of a task.
        nearest: String,
        /// The names of all tasks.
        known: String,
    },
    /// Two tasks with the same name.
    #[error("two tasks are called `{0}`; give one of them another name")]
    SameName(String),
    /// A document, counted from 1, whose tokens decode to another text.
    #[error(
        "the tokens of document {0} do not decode to its text; evaluate with a tokenizer that has an id for \
         every byte"
    )]
    Lossy(usize),
    /// Samples of needles that cannot be drawn.
    #[error("{0}")]
    Needle(String),
    /// A file of examples that does not exist.
    #[error(
        "{path}: there is no file of solved examples of {task}; put the training split of the task there"
    )]
    ExamplesFile {
        /// The name of the task.
        task: String,
        /// The file.
        path: PathBuf,
    },
    /// Too few examples.
    #[error("{path}: the file has {found} examples, and {needed} are drawn for each item")]
    Examples {
        /// The file.
        path: PathBuf,
        /// Examples in the file.
        found: usize,
        /// Examples that are drawn for each item.
        needed: usize,
    },
    /// Examples that are too long together.
    #[error("the examples of all prompts have more than 1 GiB; use fewer examples or fewer items")]
    ManyExamples,
    /// Examples before documents.
    #[error("documents are scored without solved examples")]
    NoExamples,
    /// A file or folder with invalid content.
    #[error("{place}: {reason}")]
    Content {
        /// The file or folder, with the line number if a line is invalid.
        place: String,
        /// The reason why it is invalid.
        reason: String,
    },

    /// An evaluation of documents without a checkpoint.
    #[error("an evaluation needs at least one checkpoint")]
    NoCheckpoints,
    /// Checkpoints with different tokenizers, whose losses per token cannot be compared.
    #[error(
        "{checkpoint} has another tokenizer than {first}; their losses per token cannot be \
         compared: evaluate each on its own"
    )]
    Tokenizers {
        /// The checkpoint, as given.
        checkpoint: PathBuf,
        /// The first checkpoint.
        first: PathBuf,
    },
    /// Windows that are not two or more whole blocks of a model.
    #[error(
        "windows of {context} tokens must be two or more whole blocks of {block_length} tokens, the block \
         length of {checkpoint}"
    )]
    Windows {
        /// Tokens per window.
        context: usize,
        /// Tokens per block.
        block_length: usize,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// Books without text.
    #[error("there is no text in the books")]
    NoText,
    /// All books are shorter than a window, and only windows are measured.
    #[error("no book is as long as a window of {0} tokens; use a smaller context")]
    NoWindows(usize),
    /// A book that cannot be scored.
    #[error("book {book}, checkpoint {checkpoint}")]
    Book {
        /// The book's name.
        book: String,
        /// The checkpoint's label.
        checkpoint: String,
        /// The cause.
        source: Box<EvalError>,
    },
    /// A folder without an evaluation to resume.
    #[error("{0}: the folder holds no evaluation to resume")]
    NotBegun(PathBuf),
    /// A folder that holds an evaluation already.
    #[error("{0}: the folder holds an evaluation already; resume it, or use another folder")]
    AlreadyBegun(PathBuf),
    /// An evaluation that cannot be resumed, because its input has changed or a file is damaged.
    #[error("{place}: {reason}; start again in another folder")]
    NotResumable {
        /// The folder of the evaluation, or "FILE is damaged", with the line number if there is one.
        place: String,
        /// The setting that changed, or the damage.
        reason: String,
    },

    /// Ranks that cannot evaluate together.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A text that cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A text or tokenizer that cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A checkpoint that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl EvalError {
    /// Whether all ranks get this error, so that none waits for another.
    pub fn is_of_all_ranks(&self) -> bool {
        matches!(self, Self::Collective(error) if error.is_of_all_ranks())
    }

    pub(crate) fn content(path: &Path, reason: impl Into<String>) -> Self {
        Self::Content { place: path.display().to_string(), reason: reason.into() }
    }

    pub(crate) fn line(path: &Path, line: usize, reason: impl Into<String>) -> Self {
        Self::Content { place: format!("{}:{line}", path.display()), reason: reason.into() }
    }
}
