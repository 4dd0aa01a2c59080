//! The temporary folder of a body.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary folder with the files that a reader gets.
pub(crate) struct Scratch {
    dir: TempDir,
    files: BTreeMap<String, Vec<u8>>,
}

impl Scratch {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let mut scratch = Self { dir: tempfile::tempdir().unwrap(), files: BTreeMap::new() };
        files.iter().for_each(|(name, bytes)| scratch.put(name, bytes));
        scratch
    }

    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
        self.files.insert(name.into(), bytes.to_vec());
    }

    /// Adds a link.
    #[cfg(unix)]
    pub(crate) fn link(&mut self, name: &str, to: &Path) {
        std::os::unix::fs::symlink(to, self.path(name)).unwrap();
        self.files.insert(name.into(), std::fs::read(to).unwrap());
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The value of `result`. An error must name a file of the folder.
    pub(crate) fn named<T, E: Error>(&self, result: Result<T, E>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => said(&error),
        };
        assert!(error.contains(self.dir.path().to_str().unwrap()), "no file is named: {error}");
        None
    }

    /// Checks that the reader has written nothing.
    pub(crate) fn unchanged(self) {
        let names = std::fs::read_dir(self.dir.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        let known = |name: &std::ffi::OsString| self.files.contains_key(&*name.to_string_lossy());
        assert!(names.iter().all(known), "a file was added: {names:?}");
        for (name, bytes) in &self.files {
            assert!(std::fs::read(self.path(name)).unwrap() == *bytes, "{name} was changed");
        }
    }
}

/// An error and its causes.
pub(crate) fn said(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
