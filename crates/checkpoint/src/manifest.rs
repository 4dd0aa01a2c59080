//! `manifest.json`: the format of a checkpoint, with size and SHA-256 of each file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use block_transformer_files::{FileError, NewFolder, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::CheckpointError;
use crate::format::FORMAT;

pub(crate) const NAME: &str = "manifest.json";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u64,
    pub files: BTreeMap<String, Listed>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    size: u64,
    pub sha256: String,
}

impl Manifest {
    /// The manifest of the files in `folder` that have one of `names`.
    pub(crate) fn of(folder: &NewFolder, names: &[&str]) -> Result<Self, FileError> {
        let written = names.iter().filter(|name| folder.temporary_path(name).exists());
        let files = written.map(|name| {
            let (size, sha256) = digest(&folder.temporary_path(name))?;
            Ok((name.to_string(), Listed { size, sha256 }))
        });
        Ok(Self { format: FORMAT, files: files.collect::<Result<_, _>>()? })
    }

    /// Reads the manifest of the checkpoint folder `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(NAME);
        let damaged = |e: serde_json::Error| CheckpointError::damaged(&path, e);
        let value: Value = serde_json::from_str(&read(&path).map_err(unread)?).map_err(damaged)?;
        let manifest = match value.get("format").map(Value::as_u64) {
            Some(Some(found)) if found > FORMAT => {
                return Err(CheckpointError::NewerFormat { path: dir.into(), found });
            }
            Some(_) => value,
            None => json!({"format": 1, "files": value}),
        };
        serde_json::from_value(manifest).map_err(damaged)
    }

    /// Compares every file that the manifest lists, except those of `unread`, with the file in `dir`. The
    /// manifest must list all files of `needed`.
    pub(crate) fn verify(
        &self,
        dir: &Path,
        needed: &[&str],
        unread: &[&str],
    ) -> Result<(), CheckpointError> {
        if let Some(name) = needed.iter().find(|name| !self.files.contains_key(**name)) {
            return Err(CheckpointError::damaged(&dir.join(NAME), format!("{name} is not listed")));
        }
        let files = self.files.iter().filter(|(name, _)| !unread.contains(&name.as_str()));
        std::thread::scope(|scope| {
            let checks: Vec<_> = files
                .map(|(name, listed)| scope.spawn(move || listed.verify(&dir.join(name))))
                .collect();
            checks.into_iter().try_for_each(|check| {
                check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }
}

impl Listed {
    /// Compares the file at `path` with what was written.
    fn verify(&self, path: &Path) -> Result<(), CheckpointError> {
        let (size, sha256) = digest(path).map_err(unread)?;
        if size != self.size {
            let reason = format!("{size} bytes, but {} were written", self.size);
            return Err(CheckpointError::damaged(path, reason));
        }
        if sha256 != self.sha256 {
            return Err(CheckpointError::damaged(path, "its SHA-256 has changed"));
        }
        Ok(())
    }
}

/// The error of a file of a checkpoint that could not be read. A file that is missing is damage.
fn unread(error: FileError) -> CheckpointError {
    match error.source.kind() {
        ErrorKind::NotFound => CheckpointError::damaged(&error.path, "the file is missing"),
        _ => error.into(),
    }
}

pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(FileError::read(path))
}
