//! `manifest.json`: the format of a checkpoint, with size and SHA-256 of each file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::CheckpointError;

/// The checkpoint format that is written. A manifest of format 1 was a plain map of files and
/// stated no format.
pub const FORMAT: u64 = 2;

pub(crate) const NAME: &str = "manifest.json";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u64,
    files: BTreeMap<String, Listed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    size: u64,
    sha256: String,
}

impl Manifest {
    /// The manifest of the files `names` that exist under `path(name)`.
    pub(crate) fn of<'a>(
        names: impl IntoIterator<Item = &'a str>,
        path: impl Fn(&str) -> PathBuf,
    ) -> Result<Self, CheckpointError> {
        let mut files = BTreeMap::new();
        for name in names {
            let path = path(name);
            if path.exists() {
                let (size, sha256) = digest(&path)?;
                files.insert(name.into(), Listed { size, sha256 });
            }
        }
        Ok(Self { format: FORMAT, files })
    }

    /// Reads the manifest of the checkpoint folder `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(NAME);
        let damaged = |e: serde_json::Error| CheckpointError::damaged(&path, e);
        let value: Value = serde_json::from_str(&read(&path)?).map_err(damaged)?;
        match value.get("format") {
            None => {
                let files = serde_json::from_value(value).map_err(damaged)?;
                Ok(Self { format: 1, files })
            }
            Some(format) => match format.as_u64() {
                Some(found) if found > FORMAT => {
                    Err(CheckpointError::NewerFormat { path: dir.into(), found, supported: FORMAT })
                }
                _ => serde_json::from_value(value).map_err(damaged),
            },
        }
    }

    /// SHA-256 of the file `name`.
    pub(crate) fn sha256(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(|listed| listed.sha256.as_str())
    }

    /// Compares every file of `dir` with the manifest, which must list those of `needed`.
    pub(crate) fn verify(&self, dir: &Path, needed: &[&str]) -> Result<(), CheckpointError> {
        if let Some(name) = needed.iter().find(|name| !self.files.contains_key(**name)) {
            return Err(CheckpointError::damaged(&dir.join(NAME), format!("{name} is not listed")));
        }
        for (name, listed) in &self.files {
            let path = dir.join(name);
            let (size, sha256) = digest(&path)?;
            if size != listed.size {
                let reason = format!("{size} bytes, but {} were written", listed.size);
                return Err(CheckpointError::damaged(&path, reason));
            }
            if sha256 != listed.sha256 {
                return Err(CheckpointError::damaged(&path, "its SHA-256 has changed"));
            }
        }
        Ok(())
    }
}

pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(FileError::read(path))
}
