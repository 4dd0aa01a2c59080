//! What lies where in the folder of a run.

use std::path::{Path, PathBuf};

use crate::durable::{remove_dir, sweep, write};
use crate::{TrainConfig, TrainError};

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    dir: PathBuf,
}

impl RunFolder {
    /// The run at `dir`, which need not exist.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// The run's configuration.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("train.toml")
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether a run has begun here.
    pub fn is_used(&self) -> bool {
        self.config_path().exists() || !self.checkpoints().is_empty()
    }

    /// Makes the folder and writes the configuration.
    pub(crate) fn begin(&self, config: &TrainConfig) -> Result<(), TrainError> {
        std::fs::create_dir_all(&self.dir).map_err(TrainError::io(&self.dir))?;
        sweep(&self.dir);
        sweep(&self.checkpoint_dir());
        write(&self.config_path(), config.to_toml().as_bytes())
    }

    fn checkpoint_dir(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    /// Where the checkpoint of `step` is.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoint_dir().join(format!("step-{step:06}"))
    }

    /// Checkpoint folders, oldest first.
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

    /// The checkpoint of lowest validation loss.
    pub fn best(&self) -> Option<PathBuf> {
        let name = std::fs::read_to_string(self.checkpoint_dir().join("best")).ok()?;
        let path = self.checkpoint_dir().join(name.trim());
        path.is_dir().then_some(path)
    }

    /// Records `step` as the best.
    pub(crate) fn set_best(&self, step: u64) -> Result<(), TrainError> {
        let name = format!("step-{step:06}\n");
        write(&self.checkpoint_dir().join("best"), name.as_bytes())
    }

    /// Removes the checkpoints past `step`: damaged ones, whose steps will be done again.
    pub(crate) fn forget_after(&self, step: u64) -> Result<(), TrainError> {
        let later = self.numbered().into_iter().filter(|(number, _)| *number > step);
        later.map(|(_, path)| path).try_for_each(|path| remove_dir(&path))
    }

    /// Removes all but the `keep` newest checkpoints and the best.
    pub(crate) fn prune(&self, keep: usize) -> Result<(), TrainError> {
        let (all, best) = (self.checkpoints(), self.best());
        let old = all.len().saturating_sub(keep);
        all[..old]
            .iter()
            .filter(|&path| Some(path) != best.as_ref())
            .try_for_each(|p| remove_dir(p))
    }
}
