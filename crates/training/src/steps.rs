//! The steps of a run: queued on the device, read, reported, validated and checkpointed.

use std::time::Instant;

use block_transformer_checkpoint::{Contents, Snapshot};
use block_transformer_datasets::Window;
use block_transformer_layers::is_cubecl;
use burn::train::TrainingComponents;

use crate::batch::num_tokens;
use crate::error::TrainError;
use crate::events::Events;
use crate::memory::{self, OutOfMemory};
use crate::queue::{Queue, QueuedStep};
use crate::ranks;
use crate::row::MetricsRow;
use crate::run::TrainingRun;
use crate::schedule::Schedule;
use crate::speed::{RunEvent, StepProgress};
use crate::trainable::{Learned, StepOutput};
use crate::update::{StepResult, StepValues};

/// Number of steps in a row without a finite loss and gradient norm after which a run ends.
const MOST_SKIPPED: usize = 10;
/// Bytes of a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

impl TrainingRun {
    /// Trains to the last step, or until an interruption or early stopping.
    pub(crate) fn train(
        &mut self,
        components: &mut TrainingComponents<Learned>,
    ) -> Result<(), TrainError> {
        let trained = self.train_steps(components);
        // what stops the writing of a checkpoint, such as a full disk, can stop the steps after it
        self.writer.wait()?;
        trained
    }

    fn train_steps(
        &mut self,
        components: &mut TrainingComponents<Learned>,
    ) -> Result<(), TrainError> {
        let interrupter = components.interrupter.clone();
        let mut events = Events::new(&self.config, components);
        if self.leads && self.state.step == 0 && self.state.lineage.is_some() {
            let begun = self.validate()?;
            self.state.initial_validation_loss = Some(begun);
        }
        let device = self.trainer().device().clone().inner();
        let flags = [events.should_stop(), false];
        let [mut interrupted, mut stopped_early] = ranks::any(&*self.ranks, flags, &device)?;
        while self.next_step() <= self.config.steps && !interrupted && !stopped_early {
            let stops_early = self.train_step(&mut events)?;
            let flags = [events.should_stop(), stops_early];
            [interrupted, stopped_early] = ranks::any(&*self.ranks, flags, &device)?;
        }
        self.read(&mut events)?;
        self.interrupted = self.state.step < self.config.steps && interrupted;
        self.writer.wait()?;
        if self.leads && !self.folder.checkpoint(self.state.step).exists() {
            self.checkpoint(false)?;
        }
        interrupter.error().map_or(Ok(()), |error| Err(error.into()))
    }

    /// The first step that is neither done nor queued.
    fn next_step(&self) -> u64 {
        self.state.step + self.queue.steps.len() as u64 + 1
    }

    /// Queues one step, and reads the queued steps where that is due. Returns whether early stopping
    /// ends the run.
    fn train_step(&mut self, events: &mut Events<'_>) -> Result<bool, TrainError> {
        self.queue.begun.get_or_insert_with(Instant::now);
        let step = self.next_step();
        let lr = Schedule::new(&self.config).rate(step);
        let micro_batches = self.windows(step);
        let tokens = micro_batches.iter().map(|windows| num_tokens(windows)).sum();
        let queued = memory::catch(|| self.replicas.queue(micro_batches, lr, self.reading));
        let values = match queued {
            Ok(Err(_)) if self.replicas.is_out_of_memory() => Err(self.out_of_memory(step)),
            Ok(values) => values.map_err(TrainError::from),
            Err(OutOfMemory) => Err(self.out_of_memory(step)),
        }?;
        self.queue.steps.push(QueuedStep { step, lr, tokens });
        self.queue.values.push(values);
        let config = &self.config;
        let reads = self.reading.reads_after(step)
            || self.logs(step)
            || self.validates(step)
            || self.evaluates(step)
            || self.checkpoint_due
            || self.compares(step)
            || step.is_multiple_of(config.checkpoint_every);
        if reads { self.read(events) } else { Ok(false) }
    }

    fn logs(&self, step: u64) -> bool {
        step.is_multiple_of(self.config.log_every) || step == 1 || step == self.config.steps
    }

    fn validates(&self, step: u64) -> bool {
        step.is_multiple_of(self.config.validate_every) || step == self.config.steps
    }

    /// Whether the weights of all ranks are compared after step `step`.
    fn compares(&self, step: u64) -> bool {
        let every = self.config.compare_every;
        let due = every > 0 && (step.is_multiple_of(every) || step == self.config.steps);
        due && self.ranks.size() > 1
    }

    /// Reads the results of the queued steps and finishes these steps. Returns whether early
    /// stopping ends the run.
    fn read(&mut self, events: &mut Events<'_>) -> Result<bool, TrainError> {
        self.writer.check()?;
        let Queue { steps, values, begun } = std::mem::take(&mut self.queue);
        let first = steps.first().map_or(1, |queued| queued.step);
        let results = memory::catch(|| StepValues::read_all(values))
            .map_err(|OutOfMemory| self.out_of_memory(first))?;
        let device_memory = self.device_memory();
        let seconds = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let seconds = seconds / steps.len().max(1) as f64;
        let mut stopped_early = false;
        for (queued, result) in steps.into_iter().zip(results) {
            stopped_early |= self.finish_step(&queued, result, (seconds, device_memory), events)?;
        }
        Ok(stopped_early)
    }

    /// Bytes of the first device's memory in use; `None` if they are not known.
    pub(crate) fn device_memory(&self) -> Option<u64> {
        let name = *self.config.all_devices().first()?;
        memory::device_memory(name, &self.trainer().device().clone().inner())
    }

    /// The error of a step, counted from 1, for which a device has too little memory.
    pub(crate) fn out_of_memory(&self, step: u64) -> TrainError {
        TrainError::OutOfMemory {
            step,
            batch: self.config.batch,
            smaller: self.config.smaller_batch(&self.model, self.config.device_memory()),
            recompute: self.config.recompute,
            saved: self.writer.saved(),
        }
    }

    /// Reports a step that took `seconds`, with the memory of the device after it, and with its
    /// validation and checkpoint. Returns whether early stopping ends the run.
    fn finish_step(
        &mut self,
        &QueuedStep { step, lr, tokens }: &QueuedStep,
        result: StepResult,
        (seconds, device_memory): (f64, Option<u64>),
        events: &mut Events<'_>,
    ) -> Result<bool, TrainError> {
        let rate = tokens as f64 / seconds;
        let mfu = self.mfu.map(|mfu| mfu.share(rate)).filter(|share| share.is_finite());
        let skipped = !result.is_finite();
        if skipped {
            self.check_skipped(step, result)?;
            (self.observer)(&RunEvent::Skipped { step, result });
        }
        let StepResult { loss, grad_norm } = result;
        self.speed.count(tokens, seconds);
        self.state.step = step;
        self.state.seconds += seconds;
        if !skipped {
            self.state.tokens += tokens;
            self.state.train_loss = Some(loss);
            let output = StepOutput {
                mfu_percent: mfu.map_or(f64::NAN, |share| 100.0 * share),
                device_memory: device_memory.map_or(f64::NAN, |bytes| bytes as f64 / GIB),
                ..StepOutput::new(loss, grad_norm, rate)
            };
            events.step(step, output, lr);
        }
        let (steps, last) = (self.config.steps, step == self.config.steps);
        let (tokens, seconds) = (self.state.tokens, self.state.seconds);
        let mut row = MetricsRow {
            step,
            loss,
            lr,
            grad_norm,
            tokens,
            seconds,
            validation_loss: None,
            skipped,
            mfu,
            device_memory,
            evaluation: Vec::new(),
        };
        if self.logs(step) && !skipped {
            (self.observer)(&RunEvent::Step(StepProgress {
                metrics: row.clone(),
                steps,
                tokens_per_second: self.speed.rate(),
                mfu: self.mfu.zip(self.speed.rate()).map(|(mfu, rate)| mfu.share(rate)),
                remaining: self.speed.remaining(steps - step),
            }));
        }
        if self.compares(step) {
            ranks::check_weights(&*self.ranks, self.trainer().model(), step)?;
        }
        if self.leads && self.validates(step) {
            row.validation_loss = Some(self.validate()?);
        }
        if self.leads && self.evaluates(step) {
            row.evaluation = self.evaluate_tasks(step)?;
        }
        row.seconds = self.state.seconds;
        let lower = |loss: &f64| {
            loss.is_finite() && self.state.best.is_none_or(|(_, lowest)| *loss < lowest)
        };
        let best = row.validation_loss.filter(lower);
        if let Some(loss) = best {
            self.state.best = Some((step, loss));
        }
        let output = row.validation_loss.map(|loss| StepOutput::new(loss, f64::NAN, f64::NAN));
        self.metrics.push(row)?;
        self.checkpoint_due |= step.is_multiple_of(self.config.checkpoint_every);
        // older checkpoints are not replaced by those of weights that may be the cause of the skip
        if best.is_some() || last || self.checkpoint_due && !skipped {
            self.checkpoint(best.is_some())?;
            self.checkpoint_due = false;
        }
        Ok(output.is_some_and(|output| events.validation(step, output)))
    }

    /// Checks that the run may continue after step `step`, which was skipped.
    fn check_skipped(&mut self, step: u64, result: StepResult) -> Result<(), TrainError> {
        let in_a_row = self.metrics.skipped_last().len() + 1;
        // rank 0 decides for all
        if step > 1 && in_a_row < MOST_SKIPPED || !self.leads {
            return Ok(());
        }
        self.writer.wait()?;
        let before = self.metrics.skipped_last();
        let first =
            |row: &MetricsRow| (row.step, StepResult { loss: row.loss, grad_norm: row.grad_norm });
        let (step, result) = before.first().map_or((step, result), first);
        Err(TrainError::NotFinite { step, result, in_a_row, saved: self.writer.saved() })
    }

    /// The windows of step `step`, by micro-batch: a function of seed and step.
    fn windows(&self, step: u64) -> Vec<Vec<Window>> {
        let k = self.config.accumulate as u64;
        let first = (step - 1) * k;
        (first..first + k).map(|i| self.train.batch(i, self.config.batch)).collect()
    }

    fn validate(&mut self) -> Result<f64, TrainError> {
        let begun = Instant::now();
        let (windows, batch) = (self.config.validation_windows, self.config.batch);
        let weights = self.validation.weights();
        // each corpus has its share of the windows, and at least one
        let losses = memory::catch(|| {
            let sources = self.validation.packings().iter().zip(weights);
            let share = |weight: f64| ((windows as f64 * weight).round() as u64).max(1);
            let loss = |(packing, &weight)| self.trainer().validate(packing, share(weight), batch);
            sources.map(loss).collect::<Vec<f64>>()
        })
        .map_err(|OutOfMemory| self.out_of_memory(self.state.step))?;
        let loss = losses.iter().zip(weights).map(|(loss, weight)| loss * weight).sum();
        self.state.seconds += begun.elapsed().as_secs_f64();
        self.state.validation_loss = Some(loss);
        let sources = match &self.sources[..] {
            [_] => Vec::new(),
            names => names.iter().cloned().zip(losses).collect(),
        };
        (self.observer)(&RunEvent::Validation { step: self.state.step, loss, sources });
        Ok(loss)
    }

    /// Copies the checkpoint of the last step from the device, and begins to write it, on rank 0.
    fn checkpoint(&mut self, best: bool) -> Result<(), TrainError> {
        if !self.leads {
            return Ok(());
        }
        self.metrics.sync()?;
        // two copies at a time would need more memory
        self.writer.wait()?;
        let contents = Contents {
            model: self.trainer().model(),
            config: &self.model,
            tokenizer: &self.tokenizer,
            optimizer: Some(self.trainer().optimizer()),
            state: &self.state,
            unused: &self.unused,
        };
        let snapshot = if is_cubecl(&self.trainer().device().clone().inner()) {
            Snapshot::of(&contents)
        } else {
            Snapshot::of_processor(&contents)
        };
        self.writer.write(self.state.step, snapshot, best)
    }
}

#[cfg(test)]
mod tests;
