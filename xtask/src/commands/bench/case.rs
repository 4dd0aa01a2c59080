//! Models to measure: presets with random weights, and checkpoints.

use std::path::{Path, PathBuf};

use anyhow::Result;
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::tensor::Device;

use crate::commands::open_checkpoint;
use crate::device::Weights;

/// A model that is made when it is its turn.
pub struct Case {
    pub name: String,
    pub config: ModelConfig,
    /// Validation loss, of a checkpoint that has one.
    pub loss: Option<f64>,
    checkpoint: Option<PathBuf>,
}

impl Case {
    /// A preset.
    pub fn preset(name: &str) -> Result<Self> {
        let config = block_transformer_zoo::preset(name)?.model.clone();
        Ok(Self { name: name.into(), config, loss: None, checkpoint: None })
    }

    /// The newest checkpoint of a folder.
    pub fn checkpoint(dir: &Path) -> Result<Self> {
        let checkpoint = open_checkpoint(dir)?;
        Ok(Self {
            name: dir.display().to_string(),
            config: checkpoint.config,
            loss: checkpoint.state.validation_loss,
            checkpoint: Some(dir.into()),
        })
    }

    /// The model, with matrices of `weights`.
    pub fn model(&self, weights: Weights, device: &Device) -> Result<LanguageModel> {
        let model = match &self.checkpoint {
            Some(dir) => open_checkpoint(dir)?.load_model(device)?,
            None => self.config.init(0, device),
        };
        Ok(weights.of(model))
    }
}
