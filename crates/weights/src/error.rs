//! What can be wrong with a weight file.

use std::path::PathBuf;

/// A weight file that could not be read, written, or matched to a model.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be opened, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it claims to be.
    #[error("{path}: not a readable safetensors file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file's tensors are not those of the model. Nothing was loaded.
    #[error(
        "{origin} does not fit the model; nothing was loaded.{}",
        list(missing, left_over, wrong)
    )]
    Mismatch {
        /// Where the tensors came from.
        origin: String,
        /// Parameters the file lacks.
        missing: Vec<String>,
        /// Tensors the model has no place for.
        left_over: Vec<String>,
        /// Tensors of another shape, or tied tensors that differ: name and what is wrong.
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
    text + "\n  Check that the preset or --config is that of the file."
}
