//! `manifest.json`: the format of a checkpoint, with size and SHA-256 of each file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Component, Path};

use block_transformer_files::{FileError, NewFolder, digest, read_text_up_to};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::CheckpointError;
use crate::format::FORMAT;

pub(crate) const NAME: &str = "manifest.json";

/// The largest manifest and the largest state in bytes.
pub(crate) const MAX_JSON: u64 = 64 << 20;

/// The most files of a checkpoint. Each is verified by a thread.
const MOST_FILES: usize = 64;

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
        let text = read_text_up_to(&path, MAX_JSON).map_err(unread)?;
        let value: Value = serde_json::from_str(&text).map_err(damaged)?;
        let manifest = match value.get("format").map(Value::as_u64) {
            Some(Some(found)) if found > FORMAT => {
                return Err(CheckpointError::NewerFormat { path: dir.into(), found });
            }
            Some(_) => value,
            None => json!({"format": 1, "files": value}),
        };
        let manifest: Self = serde_json::from_value(manifest).map_err(damaged)?;
        let count = manifest.files.len();
        if count > MOST_FILES {
            let reason = format!("it lists {count} files; a checkpoint has at most {MOST_FILES}");
            return Err(CheckpointError::damaged(&path, reason));
        }
        // a name with a folder could be that of any file of the machine
        let is_plain = |name: &str| {
            let mut parts = Path::new(name).components();
            let first = parts.next();
            parts.next().is_none() && first == Some(Component::Normal(OsStr::new(name)))
        };
        if let Some(name) = manifest.files.keys().find(|name| !is_plain(name)) {
            let reason = format!("it lists {name:?}, which is not a plain file name");
            return Err(CheckpointError::damaged(&path, reason));
        }
        Ok(manifest)
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
        let found = std::fs::metadata(path).map_err(FileError::read(path)).map_err(unread)?;
        if !found.is_file() {
            return Err(CheckpointError::damaged(path, "not a regular file"));
        }
        let size = found.len();
        if size != self.size {
            let reason = format!("{size} bytes, but {} were written", self.size);
            return Err(CheckpointError::damaged(path, reason));
        }
        let (_, sha256) = digest(path).map_err(unread)?;
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
