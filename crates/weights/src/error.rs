//! Weight files that cannot be used.

use std::path::PathBuf;

use block_transformer_files::FileError;
use block_transformer_tensor_files::TensorFileError;

/// A weight file that cannot be read, written, or matched to a model.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] TensorFileError),
    /// The tensors do not fit into a safetensors file.
    #[error("{path} cannot be written as a safetensors file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The file's tensors are not those of the model. Nothing was loaded.
    #[error(
        "{origin} does not fit the model; nothing was loaded.{}",
        list(missing, left_over, wrong)
    )]
    Mismatch {
        /// The source of the tensors.
        origin: String,
        /// Parameters that the file lacks.
        missing: Vec<String>,
        /// Tensors for which the model has no parameter.
        left_over: Vec<String>,
        /// Tensors of another shape, and tied tensors that differ: name and reason.
        wrong: Vec<String>,
    },
}

fn list(missing: &[String], left_over: &[String], wrong: &[String]) -> String {
    let mut text = String::new();
    for (what, names) in [("missing", missing), ("left over", left_over), ("wrong", wrong)] {
        for name in names {
            text.push_str(&format!("\n  {what}: {name}"));
        }
    }
    text + "\n  Check that the configuration is that of the file."
}
