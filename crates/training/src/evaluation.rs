//! Evaluation of the model while it trains.

use std::time::Instant;

use burn::module::Module;

use crate::error::TrainError;
use crate::memory::{self, OutOfMemory};
use crate::row::EvaluationScore;
use crate::run::TrainingRun;
use crate::speed::RunEvent;

impl TrainingRun {
    /// Whether the model is evaluated after step `step`, counted from 1.
    pub(crate) fn evaluates(&self, step: u64) -> bool {
        let every = self.config.eval_every;
        let due = every > 0 && (step.is_multiple_of(every) || step == self.config.steps);
        due && self.evaluator.is_some()
    }

    /// Evaluates the model after step `step`.
    pub(crate) fn evaluate_tasks(&mut self, step: u64) -> Result<Vec<EvaluationScore>, TrainError> {
        let begun = Instant::now();
        let Some(mut evaluator) = self.evaluator.take() else { return Ok(Vec::new()) };
        let model = self.trainer().model().valid();
        let scores = memory::catch(|| evaluator(&model));
        drop(model);
        self.evaluator = Some(evaluator);
        let saved = self.writer.saved();
        let scores = scores
            .map_err(|OutOfMemory| self.out_of_memory(step))?
            .map_err(|source| TrainError::Evaluation { step, saved, source })?;
        self.state.seconds += begun.elapsed().as_secs_f64();
        (self.observer)(&RunEvent::Evaluation { step, scores: scores.clone() });
        Ok(scores)
    }
}
