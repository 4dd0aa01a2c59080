//! What was measured of the published implementation.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::Lengths;

/// A published measurement, on an H100 with the batch tuned.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Thousand tokens a second.
    pub rate: f64,
    /// MB of keys, values and activations a sample.
    pub memory: f64,
}

#[derive(Deserialize)]
struct File {
    model: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    preset: String,
    #[serde(flatten)]
    measured: BTreeMap<String, Published>,
}

/// The published figures of a preset, where there are any.
pub fn published(preset: &str, lengths: Lengths) -> Option<Published> {
    static FILE: LazyLock<File> = LazyLock::new(|| {
        toml::from_str(include_str!("../published.toml")).expect("a test reads it")
    });
    let model = FILE.model.iter().find(|model| model.preset == preset)?;
    model.measured.get(&lengths.to_string()).copied()
}
