//! Measurements of the published implementation.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::workload::Lengths;

/// A published measurement on an H100 in half precision, with a tuned batch size.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Thousands of tokens per second.
    pub rate: f64,
    /// MB of keys, values and activations per sample.
    pub memory: f64,
}

/// Returns the published measurement of a preset; `None` where there is none.
pub fn published(preset: &str, lengths: Lengths) -> Option<Published> {
    /// By preset, then by lengths.
    type PublishedFigures = BTreeMap<String, BTreeMap<String, Published>>;
    static FIGURES: LazyLock<PublishedFigures> = LazyLock::new(|| {
        toml::from_str(include_str!("../published.toml")).expect("a test reads it")
    });
    FIGURES.get(preset)?.get(&lengths.to_string()).copied()
}
