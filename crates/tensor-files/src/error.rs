//! Files of tensors that cannot be used.

use std::path::{Path, PathBuf};

use block_transformer_files::FileError;

/// A file of tensors that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFileError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not have the format of its name, or contains a tensor in a format that is not supported.
    #[error("{path} is not a readable {kind}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What the file should be.
        kind: &'static str,
        /// The cause.
        reason: String,
    },
    /// The name of a file does not say its format.
    #[error(
        "{0}: the name does not say which format the file has; it must end in .safetensors, \
         .safetensors.index.json, .bin, .bin.index.json, .pt or .pth"
    )]
    UnknownFormat(PathBuf),
}

impl TensorFileError {
    /// The error of the file `path`, which should be a `kind`.
    pub(crate) fn format(path: &Path, kind: &'static str, reason: impl ToString) -> Self {
        Self::Format { path: path.into(), kind, reason: reason.to_string() }
    }
}
