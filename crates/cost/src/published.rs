//! Measurements of the published implementation.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::workload::Lengths;

/// A published measurement, on an H100 with the batch tuned.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Thousands of tokens per second.
    pub rate: f64,
    /// MB of keys, values and activations per sample.
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

/// Returns the published measurement of a preset; `None` where there is none.
pub fn published(preset: &str, lengths: Lengths) -> Option<Published> {
    static FILE: LazyLock<File> = LazyLock::new(|| {
        toml::from_str(include_str!("../published.toml")).expect("a test reads it")
    });
    let model = FILE.model.iter().find(|model| model.preset == preset)?;
    model.measured.get(&lengths.to_string()).copied()
}
