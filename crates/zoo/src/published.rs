//! Published weights by name, read from the `weights.toml` of each family.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::families::{ModelConfig, REGISTRATIONS};
use crate::presets::preset;

/// Weights that somebody published.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedWeights {
    /// Name, such as `pythia-160m`.
    pub name: String,
    /// Description in one line.
    pub summary: String,
    /// Licence, as its publisher names it.
    pub licence: String,
    /// Id of the repository on the hub of Hugging Face.
    pub hub: Option<String>,
    /// Name of the folder in which the publisher shares the files, if the hub does not have them.
    pub folder: Option<String>,
    /// The page that links the folder.
    pub source: Option<String>,
    /// SHA-256 of the weights file, in lower-case hexadecimal, where it is known.
    pub sha256: Option<String>,
    /// Published number of parameters outside the embeddings.
    pub published_non_embedding: Option<usize>,
    /// The shape, if no preset has it.
    model: Option<ModelConfig>,
    /// The preset with the shape.
    preset: Option<String>,
}

impl PublishedWeights {
    /// The shape of the model.
    pub fn model(&self) -> &ModelConfig {
        let preset = || Some(&preset(self.preset.as_deref()?).ok()?.model);
        self.model.as_ref().or_else(preset).expect("a test reads every weights file")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightsFile {
    weights: Vec<PublishedWeights>,
}

static WEIGHTS: LazyLock<Vec<PublishedWeights>> = LazyLock::new(|| {
    let read = |toml| toml::from_str::<WeightsFile>(toml).expect("a test reads every weights file");
    let tables = REGISTRATIONS.iter().map(|family| family.weights);
    tables.filter(|table| !table.is_empty()).flat_map(|table| read(table).weights).collect()
});

/// All published weights that have a name here.
pub fn published_weights() -> &'static [PublishedWeights] {
    &WEIGHTS
}

#[cfg(test)]
mod tests {
    use block_transformer_family::FamilyConfig;

    use super::*;

    #[test]
    fn every_row_has_a_shape_with_the_published_number_of_parameters_and_a_place() {
        for row in published_weights() {
            row.model().check().unwrap();
            if let Some(published) = row.published_non_embedding {
                assert_eq!(row.model().num_params_non_embedding(), published, "{}", row.name);
            }
            assert!(row.hub.is_some() != row.folder.is_some(), "{}", row.name);
            assert_eq!(row.folder.is_some(), row.source.is_some(), "{}", row.name);
        }
        let pythia = published_weights().iter().filter(|row| row.name.starts_with("pythia-"));
        assert_eq!(pythia.filter(|row| row.published_non_embedding.is_some()).count(), 12);
        assert_eq!(published_weights().iter().filter(|row| row.folder.is_some()).count(), 6);
    }
}
