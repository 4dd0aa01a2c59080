//! What can stop a training run.

use std::path::{Path, PathBuf};

/// A run that cannot start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A choice that cannot be trained with; names the flag.
    #[error("{0}")]
    Choice(String),
    /// A file system operation that failed.
    #[error(transparent)]
    File(#[from] block_transformer_files::FileError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] block_transformer_checkpoint::CheckpointError),
    /// A file that is not what was written.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Loss or gradient stopped being a number.
    #[error(
        "step {step}: the {what} is not finite; the weights of step {good} and before are kept in \
         the checkpoints. Lower --lr or raise --warmup"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// The last checkpointed step.
        good: u64,
    },
    /// The corpus.
    #[error(transparent)]
    Dataset(#[from] block_transformer_datasets::DatasetError),
    /// The tokenizer.
    #[error(transparent)]
    Text(#[from] block_transformer_text::TextError),
    /// The model's configuration.
    #[error(transparent)]
    Model(#[from] block_transformer_zoo::ConfigError),
    /// A model whose sizes do not fit together.
    #[error(transparent)]
    Sizes(#[from] block_transformer_zoo::family::InvalidConfig),
    /// The preset's name.
    #[error(transparent)]
    Preset(#[from] block_transformer_zoo::PresetError),
    /// Tensors the model does not compute with.
    #[error(transparent)]
    Weights(#[from] block_transformer_weights::WeightsError),
    /// The plot.
    #[error(transparent)]
    Plot(#[from] block_transformer_plot::PlotError),
}

impl TrainError {
    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), reason: reason.into() }
    }
}
