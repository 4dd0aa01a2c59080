//! Training speed of this process, and the progress reports of a run.

use crate::row::{EvaluationScore, MetricsRow};
use crate::update::StepResult;

/// Number of first steps of a process that are not part of its speed, because memory is allocated
/// and caches are filled in them.
const COLD_STEPS: u64 = 3;

/// An event of a run, for [`TrainingRun::observe`](crate::TrainingRun::observe).
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// A step at the log interval.
    Step(StepProgress),
    /// A step that changed nothing, because its loss or gradient norm is not finite.
    Skipped {
        /// The step, counted from 1.
        step: u64,
        /// Loss and gradient norm.
        result: StepResult,
    },
    /// A validation.
    Validation {
        /// The step after which it ran.
        step: u64,
        /// Validation loss in nats per token; of a mixture, the mean of the losses of its corpora by
        /// their weights.
        loss: f64,
        /// The name and the loss of each corpus of a mixture; empty without a mixture.
        sources: Vec<(String, f64)>,
    },
    /// An evaluation.
    Evaluation {
        /// The step after which it ran.
        step: u64,
        /// The scores.
        scores: Vec<EvaluationScore>,
    },
}

/// Progress of a run after a step.
#[derive(Clone, Debug)]
pub struct StepProgress {
    /// The metrics of the step, before a validation.
    pub metrics: MetricsRow,
    /// Steps of the whole run.
    pub steps: u64,
    /// Tokens per second, padding not counted; `None` during the first steps of the process, which
    /// are not counted.
    pub tokens_per_second: Option<f64>,
    /// Share of the peak at this speed, from 0 to 1; `None` if one of them is not known.
    pub mfu: Option<f64>,
    /// Seconds to the end at this speed.
    pub remaining: Option<f64>,
}

#[derive(Default)]
pub(crate) struct Speed {
    steps: u64,
    tokens: u64,
    seconds: f64,
}

impl Speed {
    pub(crate) fn count(&mut self, tokens: u64, seconds: f64) {
        self.steps += 1;
        if self.steps > COLD_STEPS {
            self.tokens += tokens;
            self.seconds += seconds;
        }
    }

    pub(crate) fn rate(&self) -> Option<f64> {
        (self.steps > COLD_STEPS).then(|| self.tokens as f64 / self.seconds)
    }

    pub(crate) fn remaining(&self, steps: u64) -> Option<f64> {
        let counted = self.steps.checked_sub(COLD_STEPS).filter(|&counted| counted > 0)?;
        Some(self.seconds / counted as f64 * steps as f64)
    }
}
