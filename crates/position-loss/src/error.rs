//! What can stop an evaluation.

use std::path::{Path, PathBuf};

use block_transformer_checkpoint::CheckpointError;
use block_transformer_datasets::DatasetError;
use block_transformer_evaluation::EvalError;
use block_transformer_files::FileError;
use block_transformer_plot::PlotError;
use block_transformer_text::TextError;

/// An evaluation that cannot start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PositionLossError {
    /// A choice that cannot be evaluated with; names the flag.
    #[error("{0}")]
    Choice(String),
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what it must be; says what to do.
    #[error("{path}: {reason}")]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A book that cannot be scored.
    #[error("book {book}, checkpoint {checkpoint}: {source}")]
    Score {
        /// The book.
        book: String,
        /// The checkpoint.
        checkpoint: String,
        /// Why.
        source: EvalError,
    },
    /// A model that cannot be scored with.
    #[error(transparent)]
    Model(#[from] EvalError),
    /// A text.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of the evaluation.
    #[error(transparent)]
    File(#[from] FileError),
    /// The plot.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

impl PositionLossError {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.into(), source }
    }

    pub(crate) fn content(path: &Path, reason: impl Into<String>) -> Self {
        Self::Content { path: path.into(), reason: reason.into() }
    }
}
