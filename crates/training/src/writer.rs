//! The thread that writes checkpoints while the training goes on.

use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use block_transformer_checkpoint::{RunFolder, Snapshot};

use crate::error::TrainError;

/// Writes the checkpoints of a run, one at a time.
pub(crate) struct Writer {
    folder: RunFolder,
    /// Newest checkpoints that are kept.
    keep: usize,
    /// Whether a step does not fit into the memory beside the copy that a checkpoint is written from.
    waits: bool,
    /// The step of the newest complete checkpoint; 0 if there is none.
    saved: u64,
    /// The step of the checkpoint that is being written.
    writing: Option<(u64, JoinHandle<Result<(), TrainError>>)>,
}

impl Writer {
    /// Creates a writer of checkpoints. With `waits`, each is complete before training goes on.
    pub(crate) fn new(folder: RunFolder, keep: usize, saved: u64, waits: bool) -> Self {
        Self { folder, keep, saved, waits, writing: None }
    }

    /// The step of the newest complete checkpoint; 0 if there is none.
    pub(crate) fn saved(&self) -> u64 {
        self.saved
    }

    /// Begins to write the checkpoint of step `step`, after the one before it is complete. `best`
    /// records it as the best.
    ///
    /// # Errors
    /// When the checkpoint before it could not be written, or this one if the writer waits.
    pub(crate) fn write(
        &mut self,
        step: u64,
        snapshot: Snapshot,
        best: bool,
    ) -> Result<(), TrainError> {
        self.wait()?;
        let (folder, keep) = (self.folder.clone(), self.keep);
        let write = move || -> Result<(), TrainError> {
            snapshot.write(&folder.checkpoint(step))?;
            if best {
                folder.set_best(step)?;
            }
            Ok(folder.prune(keep)?)
        };
        self.writing = Some((step, thread::spawn(write)));
        if self.waits { self.wait() } else { Ok(()) }
    }

    /// Reports the result of a checkpoint that is complete by now, without waiting.
    ///
    /// # Errors
    /// When the checkpoint could not be written.
    pub(crate) fn check(&mut self) -> Result<(), TrainError> {
        match &self.writing {
            Some((_, thread)) if thread.is_finished() => self.wait(),
            _ => Ok(()),
        }
    }

    /// Waits until the checkpoint is complete.
    ///
    /// # Errors
    /// When the checkpoint could not be written.
    pub(crate) fn wait(&mut self) -> Result<(), TrainError> {
        let Some((step, thread)) = self.writing.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        self.saved = step;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some((_, thread)) = self.writing.take() {
            // after an error or a panic, which is reported instead of this result
            let _ = thread.join();
        }
    }
}
