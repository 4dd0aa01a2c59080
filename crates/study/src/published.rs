//! Published figures of the paper, drawn beside those of a study.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// A published model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishedModel {
    /// The model.
    pub name: String,
    /// The family, as the series of a figure that it belongs to.
    pub family: String,
    /// Its values by name.
    pub values: BTreeMap<String, f64>,
}

/// Published figures with their source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishedFigures {
    /// The source.
    pub source: String,
    /// The conditions under which they were measured.
    pub conditions: String,
    pub model: Vec<PublishedModel>,
}

/// Returns the published figures.
pub(crate) fn published() -> &'static PublishedFigures {
    static FIGURES: LazyLock<PublishedFigures> = LazyLock::new(|| {
        toml::from_str(include_str!("../studies/published.toml")).expect("a test reads it")
    });
    &FIGURES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cost model has the same figures of the same table.
    #[test]
    fn the_figures_are_those_of_the_cost_model() {
        for model in &published().model {
            let preset = match &*model.name {
                "block 85M" => "block-170m",
                "block 302M" => "block-420m",
                "vanilla 85M" => "vanilla-160m",
                "vanilla 302M" => "vanilla-410m",
                _ => continue,
            };
            for (name, lengths) in [("prefill", "2048:128"), ("decode", "128:2048")] {
                let known =
                    block_transformer_cost::published(preset, lengths.parse().unwrap()).unwrap();
                assert_eq!(
                    model.values[&format!("{name}_rate")],
                    1000.0 * known.rate,
                    "{preset} {name}"
                );
                assert_eq!(
                    model.values[&format!("{name}_bytes")],
                    1e6 * known.memory,
                    "{preset} {name}"
                );
            }
        }
    }
}
