//! A folder of results, from which a killed evaluation can be resumed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, sweep, write};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::EvalError;

/// The files of an evaluation.
#[derive(Clone, Debug)]
pub(crate) struct ResultFolder {
    dir: PathBuf,
}

impl ResultFolder {
    /// The folder `dir`, which need not exist.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// The path of a file of the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts an evaluation whose input is `begun`, which the file `name` records. Files called `old` are left
    /// from an evaluation whose input was deleted; they are removed.
    pub(crate) fn start(
        &self,
        name: &str,
        begun: &impl Serialize,
        old: &[&str],
    ) -> Result<(), EvalError> {
        if self.file(name).exists() {
            return Err(EvalError::AlreadyBegun(self.dir.clone()));
        }
        fs::create_dir_all(&self.dir).map_err(FileError::write(&self.dir))?;
        old.iter().try_for_each(|old| self.remove(old))?;
        self.write_json(name, begun)
    }

    /// The input that [`start`](Self::start) recorded.
    pub(crate) fn begun<T: DeserializeOwned>(&self, name: &str) -> Result<T, EvalError> {
        self.read(name)?.ok_or_else(|| EvalError::NotBegun(self.dir.clone()))
    }

    /// Removes incomplete files that a kill left.
    pub(crate) fn sweep(&self) {
        sweep(&self.dir);
    }

    /// The error of an evaluation whose input is not the one that is recorded.
    pub(crate) fn changed(&self, reason: String) -> EvalError {
        EvalError::NotResumable { place: self.dir.display().to_string(), reason }
    }

    /// The error of a file that cannot be read as what was written.
    pub(crate) fn damaged(&self, name: &str, reason: &str) -> EvalError {
        let place = format!("{} is damaged", self.file(name).display());
        EvalError::NotResumable { place, reason: reason.into() }
    }

    /// Reads the lines of a file of JSON values. If the process was killed while it wrote the last line, this
    /// incomplete line is removed from the file.
    pub(crate) fn lines<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, EvalError> {
        let path = self.file(name);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = fs::read(&path).map_err(FileError::read(&path))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            let file = OpenOptions::new().write(true).open(&path);
            let cut = file.and_then(|file| file.set_len(whole as u64));
            cut.map_err(FileError::write(&path))?;
        }
        let lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let value = |(i, line): (usize, &[u8])| {
            serde_json::from_slice(line)
                .map_err(|e| self.damaged(&format!("{name}:{}", i + 1), &e.to_string()))
        };
        lines.enumerate().map(value).collect()
    }

    /// Appends a line to a file of JSON values, and with `sync` waits until it is on the disk.
    pub(crate) fn append(
        &self,
        name: &str,
        value: &impl Serialize,
        sync: bool,
    ) -> Result<(), EvalError> {
        let path = self.file(name);
        let append = || {
            let line = serde_json::to_string(value)? + "\n";
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(line.as_bytes())?;
            if sync { file.sync_data() } else { Ok(()) }
        };
        Ok(append().map_err(FileError::write(&path))?)
    }

    /// Writes a file of the folder completely or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), EvalError> {
        Ok(write(&self.file(name), bytes)?)
    }

    pub(crate) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), EvalError> {
        let path = self.file(name);
        let text = serde_json::to_string_pretty(value);
        let text = text.map_err(|e| FileError::write(&path)(e.into()))? + "\n";
        self.write(name, text.as_bytes())
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, EvalError> {
        let path = self.file(name);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(FileError::read(&path))?;
        serde_json::from_str(&text).map(Some).map_err(|e| self.damaged(name, &e.to_string()))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), EvalError> {
        let path = self.file(name);
        if path.exists() {
            fs::remove_file(&path).map_err(FileError::write(&path))?;
        }
        Ok(())
    }
}
