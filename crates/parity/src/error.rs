//! Cases that cannot be compared.

use std::path::PathBuf;

use block_transformer_files::FileError;
use block_transformer_generation::GenerationError;
use block_transformer_weights::WeightsError;
use block_transformer_zoo::ConfigError;

/// A case, or a folder of cases, that cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A file or folder cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder holds no case.
    #[error("{0}: no NAME.json with NAME.model.safetensors and NAME.golden.safetensors beside it")]
    NoCases(PathBuf),
    /// A recorded tensor is missing.
    #[error("{path}: no tensor `{name}`")]
    Missing {
        /// The golden file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// The configuration describes no model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Greedy generation failed.
    #[error("generation in case {case} failed")]
    Generation {
        /// Name of the case.
        case: String,
        /// The cause.
        source: GenerationError,
    },
}
