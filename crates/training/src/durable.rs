//! Files and folders that are there whole or not at all, whenever the process dies.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::TrainError;

/// Marks what is being written or removed; swept away by [`sweep`].
const TEMPORARY: &str = ".partial-";

/// Replaces the file at `path`; at no instant is it half there.
///
/// # Errors
/// When the disk refuses; the file is as it was then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let beside = temporary(path);
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| {
        // it may not exist
        let _ = fs::remove_file(&beside);
        TrainError::io(path)(e)
    })?;
    sync_parent(path)
}

/// A folder in the making beside its place.
pub(crate) struct Staged {
    temporary: PathBuf,
    place: PathBuf,
}

impl Staged {
    pub(crate) fn new(place: &Path) -> Result<Self, TrainError> {
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(TrainError::io(parent))?;
        }
        let temporary = temporary(place);
        // left by a process of the same id
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir(&temporary).map_err(TrainError::io(place))?;
        Ok(Self { temporary, place: place.into() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// Where `name` will be, for errors.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Puts every byte on the disk, then the folder in its place, instead of one that is there.
    pub(crate) fn commit(self) -> Result<(), TrainError> {
        for entry in fs::read_dir(&self.temporary).map_err(TrainError::io(&self.place))? {
            let path = entry.map_err(TrainError::io(&self.place))?.path();
            let name = path.file_name().unwrap_or_default();
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(TrainError::io(&self.place.join(name)))?;
        }
        sync(&self.temporary)?;
        if self.place.exists() {
            remove_dir(&self.place)?;
        }
        fs::rename(&self.temporary, &self.place).map_err(TrainError::io(&self.place))?;
        sync_parent(&self.place)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // gone already when it was committed
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Removes a folder; at no instant is half of it there under its name.
pub(crate) fn remove_dir(path: &Path) -> Result<(), TrainError> {
    // beside the folder that may be in the making to take its place
    let aside = temporary(&path.with_extension("old"));
    // left by a process of the same id
    let _ = fs::remove_dir_all(&aside);
    fs::rename(path, &aside).map_err(TrainError::io(path))?;
    fs::remove_dir_all(&aside).map_err(TrainError::io(path))
}

/// Removes from `dir` what killed processes left half done.
pub(crate) fn sweep(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().contains(TEMPORARY)) {
        // what cannot be removed does no harm
        let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
    }
}

/// Size and SHA-256 of a file.
pub(crate) fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
    Ok((size, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{TEMPORARY}{}", std::process::id()))
}

fn sync_parent(path: &Path) -> Result<(), TrainError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

#[cfg(unix)]
fn sync(dir: &Path) -> Result<(), TrainError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(TrainError::io(dir))
}

/// Only Unix opens folders as files.
#[cfg(not(unix))]
fn sync(_: &Path) -> Result<(), TrainError> {
    Ok(())
}
