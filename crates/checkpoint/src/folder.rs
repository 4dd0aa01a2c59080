//! The folder of a training run.

use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, remove_folder, sweep, write};

/// The folder of a training run: its configuration, its metrics and its checkpoints.
#[derive(Clone, Debug)]
pub struct RunFolder {
    dir: PathBuf,
}

impl RunFolder {
    /// The run folder at `dir`, which need not exist.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// Path of the run's configuration.
    pub fn config_path(&self) -> PathBuf {
        self.file("train.toml")
    }

    /// Path of the file `name` of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether a run has started here.
    pub fn is_used(&self) -> bool {
        self.config_path().exists() || !self.checkpoints().is_empty()
    }

    /// Creates the folder, removes temporary files and folders that killed processes left, and
    /// writes the run's configuration.
    ///
    /// # Errors
    /// When the folder is not writable.
    pub fn begin(&self, config: &str) -> Result<(), FileError> {
        std::fs::create_dir_all(&self.dir).map_err(FileError::write(&self.dir))?;
        sweep(&self.dir);
        sweep(&self.checkpoint_dir());
        write(&self.config_path(), config.as_bytes())
    }

    fn checkpoint_dir(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    /// Path of the checkpoint after step `step`.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoint_dir().join(format!("step-{step:06}"))
    }

    /// Paths of the checkpoints, oldest first.
    pub fn checkpoints(&self) -> Vec<PathBuf> {
        self.numbered().into_iter().map(|(_, path)| path).collect()
    }

    fn numbered(&self) -> Vec<(u64, PathBuf)> {
        let entries = std::fs::read_dir(self.checkpoint_dir()).into_iter().flatten().flatten();
        let step = |name: &str| name.strip_prefix("step-")?.parse::<u64>().ok();
        let mut found: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| Some((step(entry.file_name().to_str()?)?, entry.path())))
            .collect();
        found.sort();
        found
    }

    /// Path of the checkpoint with the lowest validation loss.
    fn best(&self) -> Option<PathBuf> {
        let name = std::fs::read_to_string(self.checkpoint_dir().join("best")).ok()?;
        let path = self.checkpoint_dir().join(name.trim());
        path.is_dir().then_some(path)
    }

    /// Records the checkpoint of step `step` as the best.
    ///
    /// # Errors
    /// When the folder is not writable.
    pub fn set_best(&self, step: u64) -> Result<(), FileError> {
        let name = format!("step-{step:06}\n");
        write(&self.checkpoint_dir().join("best"), name.as_bytes())
    }

    /// Removes the checkpoints of steps after `step`. This is for a run that resumes from `step`
    /// because all later checkpoints are damaged; the run repeats their steps.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_after(&self, step: u64) -> Result<(), FileError> {
        let later = self.numbered().into_iter().filter(|(number, _)| *number > step);
        later.map(|(_, path)| path).try_for_each(|path| remove_folder(&path))
    }

    /// Removes all checkpoints except the `keep` newest and the best.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn prune(&self, keep: usize) -> Result<(), FileError> {
        let (all, best) = (self.checkpoints(), self.best());
        let old = all[..all.len().saturating_sub(keep)].iter();
        old.filter(|&path| Some(path) != best.as_ref()).try_for_each(|path| remove_folder(path))
    }
}
