//! The presets and checkpoints that flags name.

use std::path::Path;

use anyhow::{Result, anyhow};
use block_transformer_checkpoint::{Checkpoint, CheckpointError};
use block_transformer_zoo::{Preset, PresetError};

use crate::program;

/// Returns the preset of `--preset`.
pub(super) fn preset(name: &str) -> Result<&'static Preset> {
    block_transformer_zoo::preset(name).map_err(|PresetError { name, nearest }| {
        let program = program::name();
        anyhow!(
            "--preset {name}: there is no such preset; did you mean `{nearest}`? `{program} presets` lists them"
        )
    })
}

/// Returns the presets of `--preset`.
pub(super) fn presets(names: &[String]) -> Result<Vec<&'static Preset>> {
    names.iter().map(|name| preset(name)).collect()
}

/// Opens a checkpoint, and warns on stderr about damaged ones that were skipped.
pub(super) fn open_checkpoint(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    warn_of_skipped(checkpoint.skipped.iter());
    Ok(checkpoint)
}

pub(super) fn warn_of_skipped<'a>(skipped: impl Iterator<Item = &'a CheckpointError>) {
    skipped.for_each(|error| note!("warning: skipping a damaged checkpoint: {error}"));
}
