//! Configurations of models and of runs, and files of n-grams.

use std::path::Path;

use block_transformer_exchange::{Hub, from_training_yaml, locate};
use block_transformer_generation::NGrams;
use block_transformer_training::TrainConfig;
use block_transformer_zoo::{FamilyConfig, ModelConfig, Preset};

use crate::scratch::{Scratch, said};

/// A configuration that was accepted is the same after it was written and read, and its parameters can be counted.
fn round_trips(config: &ModelConfig) {
    assert!(config.num_params_non_embedding() <= config.num_params());
    config.stacks();
    let again = ModelConfig::from_json(&config.to_json(), "again");
    assert_eq!(&again.expect("a written configuration can be read"), config);
}

/// The configuration of a model.
pub(crate) fn model_config(bytes: &[u8]) -> bool {
    let Ok(json) = str::from_utf8(bytes) else { return false };
    let config = ModelConfig::from_json(json, "config.json").map_err(|error| {
        assert!(said(&error).contains("config.json"));
    });
    config.inspect(round_trips).is_ok()
}

/// The `config.json` beside weights, of this project or of transformers.
pub(crate) fn hugging_face(bytes: &[u8]) -> bool {
    let scratch = Scratch::new(&[("model.safetensors", b""), ("config.json", bytes)]);
    let hub = Hub::new(&scratch.path("hub"), None, true);
    let located = locate(scratch.dir().to_str().unwrap(), &hub, &mut |_| {});
    let located = located.expect("the folder has a weights file");
    let config = scratch.named(located.config());
    if let Some(config) = &config {
        round_trips(config.as_ref().expect("the folder has a configuration"));
    }
    scratch.unchanged();
    config.is_some()
}

/// A training configuration of the published implementation.
pub(crate) fn training_yaml(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let config = from_training_yaml(text, Path::new("a.yaml")).map_err(|error| {
        assert!(said(&error).contains("a.yaml"));
    });
    config.inspect(round_trips).is_ok()
}

/// The configuration file of a training run.
pub(crate) fn train_config(bytes: &[u8]) -> bool {
    let mut scratch = Scratch::new(&[("c.toml", bytes)]);
    let config = TrainConfig::read(&scratch.path("c.toml"));
    let config = config.and_then(|config| config.check().map(|()| config));
    let Ok(config) = config.map_err(|error| said(&error)) else {
        scratch.unchanged();
        return false;
    };
    scratch.unchanged();
    let text = config.to_toml().expect("an accepted configuration can be written");
    scratch = Scratch::new(&[("c.toml", text.as_bytes())]);
    let again = TrainConfig::read(&scratch.path("c.toml"));
    assert_eq!(again.expect("a written configuration can be read"), config);
    true
}

/// A preset.
pub(crate) fn preset(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let preset = parsed(|| toml::from_str::<Preset>(text));
    preset.inspect(|preset| round_trips(&preset.model)).is_some()
}

/// A file of n-grams.
pub(crate) fn ngrams(bytes: &[u8]) -> bool {
    let Some(ngrams) = parsed(|| serde_json::from_slice::<NGrams>(bytes)) else { return false };
    let json = serde_json::to_vec(&ngrams).expect("n-grams are JSON");
    assert_eq!(serde_json::from_slice::<NGrams>(&json).ok().as_ref(), Some(&ngrams));
    assert!(ngrams.is_empty() || ngrams.len() <= bytes.len());
    true
}

fn parsed<T, E: std::error::Error>(parse: impl FnOnce() -> Result<T, E>) -> Option<T> {
    parse().map_err(|error| said(&error)).ok()
}
