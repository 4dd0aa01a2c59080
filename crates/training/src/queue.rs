//! Steps between the device and the host.

use std::time::Instant;

use crate::update::StepValues;

/// Steps that were sent to the device and whose results were not read yet.
#[derive(Default)]
pub(crate) struct Queue {
    pub steps: Vec<QueuedStep>,
    pub values: Vec<StepValues>,
    /// When the first of the steps began.
    pub begun: Option<Instant>,
}

/// A step whose result was not read yet.
pub(crate) struct QueuedStep {
    /// The step, counted from 1.
    pub step: u64,
    pub lr: f64,
    /// Tokens of the step, padding not counted.
    pub tokens: u64,
}
