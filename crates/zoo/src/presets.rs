//! Named configurations, read from the model crates' `presets.toml`.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::families::{ModelConfig, PRESETS as PRESETS_TOML};

/// A named configuration with the hyper-parameters it is trained with.
#[derive(Clone, Debug)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: String,
    /// One line on what it is.
    pub summary: String,
    /// Size of the published model outside embeddings, where it is one.
    pub published_non_embedding: Option<f64>,
    /// The model, over the vocabulary of the published ones unless the tokenizer says otherwise.
    pub model: ModelConfig,
    /// Hyper-parameters.
    pub train: TrainDefaults,
}

/// Hyper-parameters of a preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainDefaults {
    /// Peak learning rate.
    pub lr: f64,
    /// Sequences a step.
    pub batch: usize,
    /// Tokens a sequence.
    pub context: usize,
    /// Steps.
    pub steps: u64,
    /// Steps of linear warm-up.
    pub warmup: u64,
}

/// No preset of that name.
#[derive(Debug, thiserror::Error)]
#[error(
    "--preset {name}: there is no such preset; did you mean `{nearest}`? `cargo xtask presets` lists them"
)]
pub struct PresetError {
    /// What was asked for.
    pub name: String,
    /// The name most like it.
    pub nearest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    preset: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    summary: String,
    published_non_embedding: Option<f64>,
    train: TrainDefaults,
    model: serde_json::Value,
}

static PRESETS: LazyLock<Result<Vec<Preset>, ConfigError>> = LazyLock::new(|| {
    let mut presets = Vec::new();
    for (family, text) in PRESETS_TOML {
        let origin = format!("presets of {family}");
        let error = |e: toml::de::Error| ConfigError { origin, reason: e.to_string() };
        for raw in toml::from_str::<File>(text).map_err(error)?.preset {
            let origin = format!("preset {}", raw.name);
            presets.push(Preset {
                model: ModelConfig::from_value(raw.model, &origin)?,
                name: raw.name,
                summary: raw.summary,
                published_non_embedding: raw.published_non_embedding,
                train: raw.train,
            });
        }
    }
    Ok(presets)
});

/// Every preset, block models first.
///
/// # Panics
/// When a shipped preset file is malformed; a test reads them all.
pub fn presets() -> &'static [Preset] {
    match &*PRESETS {
        Ok(presets) => presets,
        Err(error) => panic!("{error}"),
    }
}

/// The preset called `name`.
///
/// # Errors
/// With the nearest name when there is none.
pub fn preset(name: &str) -> Result<&'static Preset, PresetError> {
    presets().iter().find(|preset| preset.name == name).ok_or_else(|| {
        let likeness = |preset: &&Preset| {
            let score = strsim::jaro_winkler(name, &preset.name);
            (score * 1e6) as u64
        };
        let nearest = presets().iter().max_by_key(likeness).map(|p| p.name.clone());
        PresetError { name: name.into(), nearest: nearest.unwrap_or_default() }
    })
}
