//! Errors of checkpoints.

use std::path::{Path, PathBuf};

use block_transformer_files::FileError;
use block_transformer_text::TextError;
use block_transformer_weights::WeightsError;
use block_transformer_zoo::ConfigError;
use burn::store::RecordError;

use crate::format::FORMAT;

/// A checkpoint that cannot be written, found or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder does not exist.
    #[error("{0}: there is no such folder")]
    NoFolder(PathBuf),
    /// The path of a folder is that of a file.
    #[error("{0}: is a file, not a folder")]
    NotAFolder(PathBuf),
    /// The folder is neither a checkpoint nor the folder of a run with a checkpoint.
    #[error("{0}: the folder is not a checkpoint and holds no run with a checkpoint")]
    NoCheckpoint(PathBuf),
    /// Every checkpoint of the run is damaged.
    #[error("{path}: every checkpoint of the run is damaged")]
    AllDamaged {
        /// The run folder.
        path: PathBuf,
        /// The error of the newest checkpoint.
        #[source]
        newest: Box<CheckpointError>,
    },
    /// The content of a file is not the content that was written.
    #[error("{path}: {reason}; the checkpoint is damaged, use another one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The difference.
        reason: String,
    },
    /// The weights that adapters belong to cannot be used.
    #[error(
        "{path} holds adapters; the weights that they belong to cannot be used; put the folder back, or export the \
             merged model while it is there"
    )]
    NoBase {
        /// The file of the adapters.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<CheckpointError>,
    },
    /// A checkpoint has other weights than those that were used.
    #[error("{path}: {reason}")]
    OtherWeights {
        /// The checkpoint folder.
        path: PathBuf,
        /// The difference.
        reason: String,
    },
    /// A newer version of the program wrote the checkpoint.
    #[error(
        "{path}: checkpoint format {found}, but this version reads formats up to {}; use the \
         version of the program that wrote it, or a newer one",
        FORMAT
    )]
    NewerFormat {
        /// The checkpoint folder.
        path: PathBuf,
        /// The format that its manifest states.
        found: u64,
    },
    /// A file of weights or optimizer state that burn cannot write, or that does not fit the model.
    #[error(
        "cannot {action} {path}{}",
        if *action == "load" {
            ": it does not fit the model of the checkpoint; the checkpoint is damaged, use another one"
        } else {
            ""
        }
    )]
    Record {
        /// The failed operation: "write" or "load".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// burn's error.
        source: RecordError,
    },
    /// The tensors of a file are not those of the model.
    #[error(
        "{path} does not fit the model of the checkpoint; the checkpoint is damaged, use another one:\n  {}",
        differences.join("\n  ")
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Each tensor that differs: its name, and its shape in the file and in the model.
        differences: Vec<String>,
    },
    /// A file system operation that failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TextError),
    /// The published tensors that no layer uses.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl CheckpointError {
    pub(crate) fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::Damaged { path: path.into(), reason: reason.to_string() }
    }
}
