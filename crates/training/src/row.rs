//! The metrics of one step.

use serde::{Deserialize, Deserializer, Serialize};

/// The value of a metric for a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationScore {
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// The value. `null` in JSON is a value that is not finite.
    #[serde(deserialize_with = "null_is_nan")]
    pub value: f64,
    /// The standard error of the value, if it is known.
    pub stderr: Option<f64>,
}

/// The metrics of one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsRow {
    /// The step, counted from 1.
    pub step: u64,
    /// Training loss before the step, in nats per token. `null` in JSON is a loss that is not finite.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping. `null` in JSON is a norm that is not finite.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Tokens trained on so far, padding not counted.
    pub tokens: u64,
    /// Seconds of computation so far.
    pub seconds: f64,
    /// Validation loss after the step, if it was measured, in nats per token.
    pub validation_loss: Option<f64>,
    /// Whether the step changed nothing, because its loss or gradient norm was not finite.
    #[serde(default)]
    pub skipped: bool,
    /// Share of the peak that the arithmetic of the model used, from 0 to 1; `None` if the peak is not
    /// known.
    #[serde(default)]
    pub mfu: Option<f64>,
    /// Bytes of the first device's memory in use; `None` if they are not known.
    #[serde(default)]
    pub device_memory: Option<u64>,
    /// The scores of the model after the step, if it was evaluated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<EvaluationScore>,
}

fn null_is_nan<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}
