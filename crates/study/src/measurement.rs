//! What can be measured, with its settings.

use std::collections::BTreeMap;

use block_transformer_cost::Lengths;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toml::Table;

use crate::run::Run;

/// The measurement of every run: its training.
pub(crate) const TRAIN: &str = "train";

/// A measurement with its settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Measurement {
    Loss(LossSettings),
    Position(LossSettings),
    Needle(NeedleKeys),
    Tasks(TaskKeys),
    Decode(DecodeKeys),
    Speed(SpeedKeys),
}

/// The loss on the validation text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LossSettings {
    /// Tokens per window; 0 for the context of the run.
    #[serde(default)]
    pub context: usize,
    /// First tokens of the text that are scored; 0 for all.
    #[serde(default)]
    pub tokens: usize,
}

/// Needles in a haystack of the validation text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NeedleKeys {
    pub lengths: Vec<usize>,
    pub depths: Vec<usize>,
    pub samples: usize,
    pub options: usize,
}

/// Tasks without examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskKeys {
    pub names: Vec<String>,
    /// First items of each task; 0 for all.
    #[serde(default)]
    pub limit: usize,
}

/// The speed of decoding in a memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecodeKeys {
    /// Lengths of prompt and continuation by name, such as `"512:128"`.
    pub workloads: BTreeMap<String, String>,
    /// Bytes for weights, caches and activations, which decide the batch.
    pub memory: u64,
    /// Limit of the time of a measurement; the rest is extrapolated.
    pub seconds: f64,
    /// Rounds in which all models are measured in turn.
    pub rounds: usize,
}

/// The speed of training steps, measured alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpeedKeys {
    pub steps: u64,
}

impl Measurement {
    /// Parses the settings of the measurement `name`.
    pub(crate) fn parse(name: &str, settings: &Table) -> Result<Self, String> {
        fn read<T: for<'de> Deserialize<'de>>(name: &str, settings: &Table) -> Result<T, String> {
            T::deserialize(settings.clone()).map_err(|error| format!("measure.{name}: {error}"))
        }
        let parsed = match name {
            "loss" => Self::Loss(read(name, settings)?),
            "position" => Self::Position(read(name, settings)?),
            "needle" => Self::Needle(read(name, settings)?),
            "tasks" => Self::Tasks(read(name, settings)?),
            "decode" => Self::Decode(read(name, settings)?),
            "speed" => Self::Speed(read(name, settings)?),
            _ => {
                return Err(format!(
                    "measure.{name}: unknown; the measurements are loss, position, needle, tasks, decode and speed"
                ));
            }
        };
        if let Self::Decode(keys) = &parsed {
            keys.lengths()?;
        }
        Ok(parsed)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Loss(_) => "loss",
            Self::Position(_) => "position",
            Self::Needle(_) => "needle",
            Self::Tasks(_) => "tasks",
            Self::Decode(_) => "decode",
            Self::Speed(_) => "speed",
        }
    }

    /// Whether it depends on the shape of a model only, and takes time that other work would change.
    pub(crate) fn is_of_shape(&self) -> bool {
        matches!(self, Self::Decode(_) | Self::Speed(_))
    }

    /// The settings for a run, as they are written to the ledger.
    pub(crate) fn settings(&self, run: &Run) -> Value {
        let mut settings = self.settings_of(run);
        if let (Some(read), false) = (&run.read, self.is_of_shape()) {
            settings["read"] = json!(read);
        }
        settings
    }

    fn settings_of(&self, run: &Run) -> Value {
        match self {
            Self::Loss(keys) | Self::Position(keys) => {
                let context = if keys.context == 0 { run.config.context } else { keys.context };
                json!({ "context": context, "tokens": keys.tokens })
            }
            Self::Needle(keys) => json!(keys),
            Self::Tasks(keys) => {
                json!({ "names": keys.names, "limit": keys.limit, "context": run.config.context })
            }
            Self::Decode(keys) => json!(keys),
            Self::Speed(keys) => {
                json!({ "steps": keys.steps, "batch": run.config.batch, "context": run.config.context })
            }
        }
    }
}

impl DecodeKeys {
    pub(crate) fn lengths(&self) -> Result<Vec<(&str, Lengths)>, String> {
        let parse = |(name, text): (&'_ String, &String)| {
            text.parse::<Lengths>()
                .map_err(|error| format!("measure.decode.workloads.{name}: {error}"))
        };
        let lengths =
            self.workloads.iter().map(|(name, text)| Ok((name.as_str(), parse((name, text))?)));
        lengths.collect()
    }
}
