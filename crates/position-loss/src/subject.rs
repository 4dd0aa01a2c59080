//! The checkpoints that are compared.

use std::path::{Path, PathBuf};

use block_transformer_checkpoint::{Checkpoint, CheckpointError};
use block_transformer_evaluation::check_tokenizer;
use block_transformer_text::Tokenizer;
use block_transformer_zoo::FamilyConfig;
use serde::{Deserialize, Serialize};

use crate::{PositionLossError, Windows};

/// A checkpoint to evaluate.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// What is written of it.
    pub about: About,
}

/// The checkpoints of an evaluation.
#[derive(Clone, Debug)]
pub struct Subjects {
    /// In the order given.
    pub(crate) all: Vec<Subject>,
    /// The tokenizer of all.
    pub(crate) tokenizer: Tokenizer,
}

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its name in tables and plots, unlike the others'.
    pub label: String,
    /// Its folder.
    pub folder: PathBuf,
    /// SHA-256 of its weights.
    pub weights: String,
    /// "block" or "vanilla".
    pub family: String,
    /// Tokens a block; 1 for the vanilla family.
    pub block_length: usize,
    /// Parameters, embeddings included.
    pub parameters: usize,
    /// Steps it was trained for here; 0 for imported weights.
    pub step: u64,
    /// Tokens of context it was trained with.
    pub trained_context: usize,
}

impl Subjects {
    /// Opens checkpoints, each given by its own folder or by its run's (the newest there).
    ///
    /// # Errors
    /// When one cannot be opened, its model has fewer ids than its tokenizer, or two have
    /// tokenizers that differ: their losses a token would not compare.
    pub fn open(paths: &[PathBuf]) -> Result<Self, PositionLossError> {
        let mut subjects: Vec<Subject> = Vec::new();
        let mut common: Option<Tokenizer> = None;
        for path in paths {
            let mut subject = Subject::open(path)?;
            let (tokenizer, config) = (subject.checkpoint.tokenizer()?, &subject.checkpoint.config);
            check_tokenizer(&tokenizer, config)
                .map_err(|e| PositionLossError::content(&subject.about.folder, e.to_string()))?;
            match (&common, subjects.first()) {
                (Some(other), Some(first))
                    if other.fingerprint()? != tokenizer.fingerprint()? =>
                {
                    return Err(PositionLossError::Choice(format!(
                        "--checkpoint {}: another tokenizer than that of {}; losses a token do not \
                         compare between them, evaluate each on its own",
                        path.display(),
                        first.about.folder.display()
                    )));
                }
                _ => common = Some(tokenizer),
            }
            let label = subject.about.label.clone();
            let taken = |label: &String| subjects.iter().any(|other| other.about.label == *label);
            let numbered = (2..).map(|n| format!("{label} {n}"));
            let free = std::iter::once(label.clone()).chain(numbered).find(|label| !taken(label));
            subject.about.label = free.unwrap_or(label);
            subjects.push(subject);
        }
        match common {
            Some(tokenizer) => Ok(Self { all: subjects, tokenizer }),
            None => Err(PositionLossError::Choice("--checkpoint: give at least one".into())),
        }
    }

    /// Damaged checkpoints that were skipped in favour of older ones of the same runs.
    pub fn skipped(&self) -> impl Iterator<Item = &CheckpointError> {
        self.all.iter().flat_map(|subject| subject.checkpoint.skipped.iter())
    }
}

impl Subject {
    fn open(path: &Path) -> Result<Self, PositionLossError> {
        let checkpoint = Checkpoint::open(path)?;
        let max_positions = checkpoint.config.max_position_embeddings();
        let config = &checkpoint.config;
        let about = About {
            label: label(&checkpoint.dir),
            folder: checkpoint.dir.clone(),
            weights: checkpoint.weights_sha256()?,
            family: config.family().into(),
            block_length: config.block_length(),
            parameters: config.num_params(),
            step: checkpoint.state.step,
            trained_context: checkpoint.state.trained_context.unwrap_or(max_positions),
        };
        Ok(Self { checkpoint, about })
    }
}

impl About {
    /// # Errors
    /// When windows of this length cannot be scored.
    pub fn check(&self, windows: &Windows) -> Result<(), PositionLossError> {
        let (context, length) = (windows.context, self.block_length);
        if context.is_multiple_of(length) && context > length {
            return Ok(());
        }
        Err(PositionLossError::Choice(format!(
            "--context {context}: must be several blocks of {length}, the block length of {}",
            self.folder.display()
        )))
    }
}

/// A run's name, or that of a checkpoint that lies in none.
fn label(folder: &Path) -> String {
    let run = folder.parent().filter(|parent| parent.ends_with("checkpoints"));
    let named = run.and_then(Path::parent).unwrap_or(folder);
    let name = named.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "checkpoint".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_called_after_its_run() {
        assert_eq!(label(Path::new("runs/block/checkpoints/step-000120")), "block");
        assert_eq!(label(Path::new("imported/block-170m")), "block-170m");
    }
}
