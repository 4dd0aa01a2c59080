//! A folder in which one process prepares at a time.

use std::fs::File;
use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, sweep};

use crate::error::DatasetError;

/// A folder that no other process prepares in at the same time. Where folders cannot be locked,
/// several processes can; each of them then writes complete files.
pub(crate) struct FolderLock {
    dir: PathBuf,
    /// Whether the folder was created for the lock.
    is_new: bool,
    /// The lock ends when the file is closed.
    _file: Option<File>,
}

impl FolderLock {
    /// Creates `dir` if it does not exist, waits until no other process prepares in it, and removes
    /// the temporary files of killed processes.
    pub(crate) fn wait(dir: &Path) -> Result<Self, DatasetError> {
        let is_new = !dir.exists();
        std::fs::create_dir_all(dir).map_err(FileError::write(dir))?;
        // some systems cannot open folders, and some file systems cannot lock
        let file = File::open(dir).ok().filter(|file| file.lock().is_ok());
        if file.is_some() {
            sweep(dir);
        }
        Ok(Self { dir: dir.into(), is_new, _file: file })
    }
}

/// Removes the folder if it was created and nothing was written.
impl Drop for FolderLock {
    fn drop(&mut self) {
        if self.is_new {
            // fails, as it should, if the folder has files
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}
