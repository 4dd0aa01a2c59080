//! Evaluation of the model while it trains.

use std::error::Error;
use std::fmt;

use block_transformer_zoo::LanguageModel;
use serde::{Deserialize, Serialize};

use crate::metrics::null_is_nan;

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

/// The error of an evaluation.
pub type EvaluationError = Box<dyn Error + Send + Sync>;

/// Scores a model, which is not on an autodiff device.
pub(crate) struct Evaluator(
    pub Box<dyn FnMut(&LanguageModel) -> Result<Vec<EvaluationScore>, EvaluationError>>,
);

impl fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Evaluator")
    }
}
