//! JSON files of a check.

use std::path::Path;

use block_transformer_files::FileError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CheckError;

/// Reads a JSON file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, CheckError> {
    let bytes = std::fs::read(path).map_err(FileError::read(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|source| CheckError::Damaged { path: path.into(), source })
}

/// Writes `value` as JSON.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), CheckError> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(block_transformer_files::write(path, &bytes)?)
}
