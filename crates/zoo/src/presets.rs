//! Named configurations, read from the `presets.toml` of each family.

use std::sync::LazyLock;

use block_transformer_files::nearest;
use serde::{Deserialize, Serialize};

use crate::families::{ModelConfig, REGISTRATIONS};

/// A named configuration with its training hyperparameters.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Name of the preset.
    pub name: String,
    /// Description in one line.
    pub summary: String,
    /// Parameters of the published model outside embeddings; `None` when none was published.
    pub published_non_embedding: Option<f64>,
    /// The model. Its vocabulary is that of the published models; a tokenizer with another
    /// vocabulary changes it.
    pub model: ModelConfig,
    /// Hyperparameters.
    pub train: TrainDefaults,
}

/// Hyperparameters of a preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainDefaults {
    /// Peak learning rate.
    pub lr: f64,
    /// Sequences per step.
    pub batch: usize,
    /// Tokens per sequence.
    pub context: usize,
    /// Steps.
    pub steps: u64,
    /// Steps of linear warm-up.
    pub warmup: u64,
}

/// The error when no preset has the given name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no preset `{name}`; did you mean `{nearest}`?")]
pub struct PresetError {
    /// The name that was asked for.
    pub name: String,
    /// The most similar name of a preset.
    pub nearest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetFile {
    preset: Vec<Preset>,
}

static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    let read = |toml| toml::from_str::<PresetFile>(toml).expect("a test reads every preset file");
    REGISTRATIONS.iter().flat_map(|family| read(family.presets).preset).collect()
});

/// Every preset, in the order of the registered families.
pub fn presets() -> &'static [Preset] {
    &PRESETS
}

/// The preset called `name`.
///
/// # Errors
/// When there is no such preset. The error contains the most similar name.
pub fn preset(name: &str) -> Result<&'static Preset, PresetError> {
    presets().iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names = presets().iter().map(|preset| preset.name.as_str());
        let nearest = nearest(name, names).unwrap_or_default().to_string();
        PresetError { name: name.into(), nearest }
    })
}
