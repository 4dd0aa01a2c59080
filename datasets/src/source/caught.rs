//! Panics of the Parquet library, which damaged files cause, as errors.

use ::parquet::errors::{ParquetError, Result};

/// Runs `read`. A panic is an error. What `read` has changed must not be used after it.
pub(super) fn caught<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = block_transformer_files::caught(read);
    result.unwrap_or_else(|| Err(ParquetError::General("the file is damaged".into())))
}
