//! Models to measure: presets with random weights, and checkpoints.

use block_transformer_checkpoint::Checkpoint;
use block_transformer_zoo::{Family, LanguageModel, ModelConfig, Precision, Preset};
use burn::tensor::Device;

use crate::error::BenchError;

/// A model to measure. Its weights are created for each measurement and dropped after it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The name of the preset or of the checkpoint.
    pub name: String,
    /// The configuration.
    pub config: ModelConfig,
    /// The validation loss of the checkpoint, if it has one.
    pub loss: Option<f64>,
    checkpoint: Option<Checkpoint>,
}

impl Candidate {
    /// Returns a preset, with random weights.
    pub fn preset(preset: &Preset) -> Self {
        let (name, config) = (preset.name.clone(), preset.model.clone());
        Self { name, config, loss: None, checkpoint: None }
    }

    /// Returns a model of this shape with random weights, under the name `name`.
    pub fn shape(name: &str, config: ModelConfig) -> Self {
        Self { name: name.into(), config, loss: None, checkpoint: None }
    }

    /// Returns a checkpoint, under the name `name`.
    pub fn checkpoint(name: &str, checkpoint: Checkpoint) -> Self {
        Self {
            name: name.into(),
            config: checkpoint.config.clone(),
            loss: checkpoint.state.validation_loss,
            checkpoint: Some(checkpoint),
        }
    }

    /// Creates or loads the model, prepared for decoding with these formats.
    ///
    /// # Errors
    /// When the checkpoint cannot be loaded.
    pub fn prepared(
        &self,
        precision: Precision,
        device: &Device,
    ) -> Result<LanguageModel, BenchError> {
        Ok(self.model(device)?.with_precision(precision).prepared())
    }

    /// Creates or loads the model.
    pub(crate) fn model(&self, device: &Device) -> Result<LanguageModel, BenchError> {
        Ok(match &self.checkpoint {
            Some(checkpoint) => checkpoint.load_model(device)?,
            None => self.config.init(0, device),
        })
    }
}
