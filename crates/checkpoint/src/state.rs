//! The position of a training run.

use std::collections::BTreeMap;

use block_transformer_zoo::family::Lora;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lineage::Lineage;

/// burn's version. A test compares it with the version that the workspace pins.
const BURN: &str = "0.22.1";

/// The position of a training run, and the settings that it was started with. The default is the
/// state of imported weights, or of a run before its first step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens trained on, without padding.
    pub tokens: u64,
    /// Seconds of computation.
    pub seconds: f64,
    /// Training loss of the last step, in nats per token.
    pub train_loss: Option<f64>,
    /// The latest validation loss, in nats per token.
    pub validation_loss: Option<f64>,
    /// The step with the lowest validation loss, and this loss.
    pub best: Option<(u64, f64)>,
    /// Tokens per training sequence; `None` for imported weights.
    #[serde(default)]
    pub trained_context: Option<usize>,
    /// Configuration of the run, in the trainer's own form; `None` for imported weights.
    pub train: Option<Value>,
    /// Identity of the corpus, in the trainer's own form; `None` for imported weights.
    pub corpus: Option<Value>,
    /// The weights that the run began with, or that were imported; `None` for a run that began with new weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// The adapters that the run trains in place of the weights of its origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Validation loss before the first step of a run that began with given weights, in nats per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_validation_loss: Option<f64>,
    /// Versions of the programs that wrote the checkpoint. Writing a checkpoint sets them.
    pub versions: BTreeMap<String, String>,
}

impl State {
    /// The state with the versions of this program.
    pub(crate) fn with_versions(&self) -> Self {
        let versions = [("block-transformer", env!("CARGO_PKG_VERSION")), ("burn", BURN)];
        let versions = versions.map(|(name, version)| (name.into(), version.into()));
        Self { versions: versions.into(), ..self.clone() }
    }

    /// Reads `state.json`. Before format 2 the context was stated in the run's configuration only.
    pub(crate) fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let mut state: Self = serde_json::from_str(json)?;
        if state.trained_context.is_none() {
            let context = state.train.as_ref().and_then(|train| train.get("context")?.as_u64());
            state.trained_context = context.and_then(|context| context.try_into().ok());
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_burn_version_is_the_pinned_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
        let workspace: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let pinned = workspace["workspace"]["dependencies"]["burn"]["version"].as_str();
        assert_eq!(pinned, Some(format!("={BURN}").as_str()));
    }

    #[test]
    fn the_context_of_an_old_state_is_that_of_its_configuration() {
        let json = r#"{"step": 3, "tokens": 9, "seconds": 0.5, "train_loss": 1.5,
            "validation_loss": null, "best": [2, 1.25], "train": {"context": 32, "lr": 0.1},
            "corpus": {"name": "a"}, "versions": {"zoo-training": "0.1.0"}}"#;
        let state = State::from_json(json).unwrap();
        assert_eq!((state.step, state.best), (3, Some((2, 1.25))));
        assert_eq!(state.trained_context, Some(32));
        let imported = State::default().with_versions();
        let json = serde_json::to_string(&imported).unwrap();
        assert_eq!(State::from_json(&json).unwrap(), imported);
    }
}
