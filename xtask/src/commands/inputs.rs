//! The presets and checkpoints that flags name.

use std::path::Path;

use anyhow::{Error, Result, anyhow, ensure};
use block_transformer_checkpoint::{Checkpoint, CheckpointError};
use block_transformer_zoo::{Preset, PresetError};

use crate::program;

/// Returns the preset of `--preset`.
pub(super) fn preset(name: &str) -> Result<&'static Preset> {
    preset_of("--preset", name)
}

/// Returns the preset called `name`, the value of `flag`.
pub(super) fn preset_of(flag: &str, name: &str) -> Result<&'static Preset> {
    block_transformer_zoo::preset(name).map_err(|PresetError { name, nearest }| {
        let program = program::name();
        anyhow!(
            "{flag} {name}: there is no such preset; did you mean `{nearest}`? `{program} presets` lists them"
        )
    })
}

/// Returns the presets of `--preset`.
pub(super) fn presets(names: &[String]) -> Result<Vec<&'static Preset>> {
    ensure!(
        !names.iter().any(String::is_empty),
        "--preset: the list has an empty name; give names of presets, separated by commas"
    );
    names.iter().map(|name| preset(name)).collect()
}

/// Opens the checkpoint of `--checkpoint`, and warns on stderr about damaged ones that were skipped.
pub(super) fn open_checkpoint(path: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open_model(path).map_err(of_checkpoint)?;
    warn_of_skipped(checkpoint.skipped.iter());
    Ok(checkpoint)
}

/// Adds `--checkpoint` to an error, with a remedy if the flag is the remedy.
pub(super) fn of_checkpoint(error: CheckpointError) -> Error {
    match &error {
        CheckpointError::NoFolder(_)
        | CheckpointError::NotAFolder(_)
        | CheckpointError::NoCheckpoint(_) => {
            anyhow!(
                "--checkpoint {error}; give the folder of a run, or one of its checkpoints (`import` makes one of \
                 weights of other programs)"
            )
        }
        _ => Error::from(error).context("--checkpoint"),
    }
}

pub(super) fn warn_of_skipped<'a>(skipped: impl Iterator<Item = &'a CheckpointError>) {
    skipped.for_each(|error| note!("warning: skipping a damaged checkpoint: {error}"));
}
