//! The checkpoints of an evaluation.

use std::path::{Path, PathBuf};

use block_transformer_checkpoint::Checkpoint;
use block_transformer_family::FamilyConfig;
use block_transformer_text::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::error::EvalError;
use crate::tasks::check_tokenizer;

/// A checkpoint that was opened for an evaluation.
#[derive(Clone, Debug)]
pub struct OpenCheckpoint {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The checkpoint's description in results.
    pub info: CheckpointInfo,
}

/// The checkpoints of an evaluation. All have the same tokenizer.
#[derive(Clone, Debug)]
pub struct OpenCheckpoints {
    /// The checkpoints, in the order given.
    pub all: Vec<OpenCheckpoint>,
    /// The tokenizer of all checkpoints.
    pub tokenizer: Tokenizer,
}

/// The description of a checkpoint in results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// The checkpoint's name in tables and plots. No other checkpoint of the evaluation has this
    /// name.
    pub label: String,
    /// The checkpoint's folder.
    pub folder: PathBuf,
    /// SHA-256 of the weights file.
    pub weights: String,
    /// Name of the model family: "block" or "vanilla".
    pub family: String,
    /// Tokens per block; 1 without blocks.
    pub block_length: usize,
    /// Parameters, including embeddings.
    pub parameters: usize,
    /// Optimizer steps; 0 for imported weights.
    pub step: u64,
    /// Tokens of context that the model was trained with.
    pub trained_context: usize,
}

impl OpenCheckpoints {
    /// Opens checkpoints. A path is a checkpoint's folder or a run folder, whose newest undamaged
    /// checkpoint is opened.
    ///
    /// # Errors
    /// When `paths` is empty, a checkpoint cannot be opened, a tokenizer has more ids than its
    /// model, or two checkpoints have different tokenizers, so that their losses per token cannot
    /// be compared.
    pub fn open(paths: &[PathBuf]) -> Result<Self, EvalError> {
        let mut all: Vec<OpenCheckpoint> = Vec::new();
        let mut common: Option<Tokenizer> = None;
        for path in paths {
            let checkpoint = Checkpoint::open_model(path)?;
            let (config, state) = (&checkpoint.config, &checkpoint.state);
            let tokenizer = checkpoint.tokenizer()?;
            check_tokenizer(&tokenizer, config.vocab_size())
                .map_err(|e| EvalError::content(&checkpoint.dir, e.to_string()))?;
            if let (Some(other), Some(first)) = (&common, all.first())
                && other.fingerprint()? != tokenizer.fingerprint()?
            {
                let first = first.info.folder.clone();
                return Err(EvalError::Tokenizers { checkpoint: path.clone(), first });
            }
            let taken = |label: &str| all.iter().any(|other| other.info.label == label);
            let info = CheckpointInfo {
                label: free_label(&checkpoint.dir, taken),
                folder: checkpoint.dir.clone(),
                weights: checkpoint.weights_sha256.clone(),
                family: config.family().into(),
                block_length: config.block_length(),
                parameters: config.num_params(),
                step: state.step,
                trained_context: state.trained_context.unwrap_or(config.max_position_embeddings()),
            };
            common = Some(tokenizer);
            all.push(OpenCheckpoint { checkpoint, info });
        }
        let tokenizer = common.ok_or(EvalError::NoCheckpoints)?;
        Ok(Self { all, tokenizer })
    }
}

/// The label of the checkpoint in `folder`: the name of its run, with a number if this name is taken.
pub fn free_label(folder: &Path, taken: impl Fn(&str) -> bool) -> String {
    let label = label(folder);
    let numbered = (2..).map(|n| format!("{label} {n}"));
    let free = std::iter::once(label.clone()).chain(numbered).find(|label| !taken(label));
    free.unwrap_or(label)
}

/// The name of the run that wrote the checkpoint in `folder`, or the name of `folder` if the
/// checkpoint belongs to no run.
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
    fn the_label_of_a_checkpoint_is_the_name_of_its_run() {
        assert_eq!(label(Path::new("runs/block/checkpoints/step-000120")), "block");
        assert_eq!(label(Path::new("imported/block-170m")), "block-170m");
    }
}
