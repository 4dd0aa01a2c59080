//! Cases that cannot be compared.

use std::path::PathBuf;

use block_transformer_files::FileError;
use block_transformer_generation::GenerationError;
use block_transformer_weights::WeightsError;
use block_transformer_zoo::{ConfigError, Precision};

/// A case, or a folder of cases, that cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A file or folder cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder holds no case, or a golden file lacks a tensor.
    #[error("{path}: {reason}")]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// Its fault.
        reason: String,
    },
    /// The configuration describes no model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device does not have the float format of the products.
    #[error("the device has no {0}")]
    NoFormat(Precision),
    /// Greedy generation failed.
    #[error("generation in case {case} failed")]
    Generation {
        /// Name of the case.
        case: String,
        /// The cause.
        source: GenerationError,
    },
}
