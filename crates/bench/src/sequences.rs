//! The benchmark of losses and training steps.

use std::time::Instant;

use block_transformer_cost::{
    Machine, OptimizerKind, Peaks, Sizes, TrainingMemory, TrainingShape, decode, largest,
    training_flops,
};
use block_transformer_datasets::Window;
use block_transformer_device::DeviceName;
use block_transformer_training::{Schedule, TrainConfig, Trainer, token_batch};
use block_transformer_zoo::{Family, FamilyConfig, ModelConfig, Precision, Preset};
use burn::tensor::Device;

use crate::error::BenchError;
use crate::memory::Growth;
use crate::prompt::token_ids;
use crate::report::{BenchReport, BenchRow, Spread, instruction_set_of};

/// Steps that are not counted, because the process allocates its memory in them.
const WARM_UP: u64 = 2;

/// The computation for a batch of whole sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The loss is computed, without gradients.
    Evaluation,
    /// A step of [`Trainer`]: the loss and its gradients are computed, and the weights are updated.
    Training,
}

/// A benchmark of whole sequences: several models in turn.
#[derive(Clone, Debug)]
pub struct SequenceBench {
    /// The models, with random weights.
    pub presets: Vec<&'static Preset>,
    /// The computation for each batch.
    pub kind: StepKind,
    /// Sequences per batch.
    pub batch: usize,
    /// Tokens per sequence.
    pub context: usize,
    /// Counted steps of each model.
    pub steps: u64,
    /// The device.
    pub device: DeviceName,
}

impl SequenceBench {
    /// Checks that the sequences are two or more whole blocks of every model.
    ///
    /// # Errors
    /// [`BenchError::Context`] when they are not.
    pub fn check(&self) -> Result<(), BenchError> {
        for preset in &self.presets {
            let (context, block_length) = (self.context, preset.model.block_length());
            if !context.is_multiple_of(block_length) || context <= block_length {
                return Err(BenchError::Context { context, block_length });
            }
        }
        Ok(())
    }

    /// Checks that a batch of every model fits into the memory of the device, where its size is known.
    ///
    /// # Errors
    /// [`BenchError::Sequences`] when one does not.
    pub fn check_memory(&self) -> Result<(), BenchError> {
        let Some(available) = self.device.memory() else { return Ok(()) };
        let (batch, context, device) = (self.batch, self.context, self.device);
        let shape = TrainingShape {
            batch,
            accumulate: 1,
            context,
            precision: Precision::default(),
            recompute: false,
            holding: device.into(),
            optimizer: OptimizerKind::Adamw,
        };
        for preset in &self.presets {
            let model = &preset.model;
            let bytes = |batch| {
                let shape = TrainingShape { batch, ..shape };
                match self.kind {
                    StepKind::Evaluation => TrainingMemory::evaluation(model, shape),
                    StepKind::Training => TrainingMemory::new(model, shape).total(),
                }
            };
            if bytes(batch) > available as f64 {
                // other processes need some memory
                let largest = largest(batch, |batch| bytes(batch) <= 0.9 * available as f64);
                let (model, needed) = (preset.name.clone(), bytes(batch) as u64);
                let error = BenchError::Sequences {
                    model,
                    batch,
                    context,
                    needed,
                    device,
                    available,
                    largest,
                };
                return Err(error);
            }
        }
        Ok(())
    }

    /// Measures every model on `device`, which must be the device that [`Self::device`] names.
    ///
    /// # Errors
    /// When [`Self::check`] or [`Self::check_memory`] returns an error, or the device fails.
    pub fn run(&self, device: &Device) -> Result<BenchReport, BenchError> {
        self.check()?;
        self.check_memory()?;
        let precision = Precision::default();
        let (mut all_peaks, mut rows) = (Vec::new(), Vec::new());
        for preset in &self.presets {
            let before = Peaks::measure(self.device, device)?;
            let growth = Growth::start();
            let seconds = self.measure(preset, precision, device)?;
            let bytes = growth.bytes();
            let peaks = before.max(Peaks::measure(self.device, device)?);
            rows.extend(self.row(preset, &peaks.machine(precision), &seconds, bytes));
            all_peaks.push(peaks);
        }
        let title = match self.kind {
            StepKind::Evaluation => "Loss of whole sequences",
            StepKind::Training => "Training steps",
        };
        let (title, device) = (title.into(), self.device);
        let instruction_set = instruction_set_of(device);
        Ok(BenchReport { title, device, instruction_set, precision, peaks: all_peaks, rows })
    }

    fn row(
        &self,
        preset: &Preset,
        machine: &Machine,
        seconds: &[f64],
        peak_bytes: Option<u64>,
    ) -> Option<BenchRow> {
        let tokens = self.batch * self.context;
        // the weights are read once per step, with their gradients and moments
        let token = decode(&preset.model, tokens, self.context / 2, Sizes::from(machine)).total();
        let (times, name) = match self.kind {
            StepKind::Evaluation => (1.0, "loss"),
            StepKind::Training => (3.0, "training"),
        };
        let token_flops = times / 3.0 * training_flops(&preset.model, self.context);
        let bound = machine.flops / token_flops;
        let rates = || seconds.iter().map(|seconds| tokens as f64 / seconds);
        let share = Spread::of(rates().map(|rate| rate / bound))?;
        Some(BenchRow {
            model: preset.name.clone(),
            family: preset.model.family(),
            block_length: preset.model.block_length(),
            work: format!("{name} of {}", self.context),
            context: None,
            batch: self.batch,
            rate: Spread::of(rates())?,
            first_token: None,
            sequence_bytes: None,
            predicted_bytes: None,
            peak_bytes,
            token_flops,
            token_bytes: times * token.weights / tokens as f64,
            roofline: Spread::of([bound])?,
            predicted: Spread::of([bound])?,
            share,
            predicted_share: share,
            loss: None,
        })
    }

    /// Returns the seconds of each counted step.
    fn measure(
        &self,
        preset: &Preset,
        precision: Precision,
        device: &Device,
    ) -> Result<Vec<f64>, BenchError> {
        let (model, length) = (&preset.model, self.context);
        let windows = (0..self.batch).map(|i| Window {
            ids: token_ids(i, length, model.vocab_size()),
            is_token: vec![true; length],
        });
        let windows: Vec<Window> = windows.collect();
        let mut run: Box<dyn FnMut(u64)> = match self.kind {
            StepKind::Evaluation => {
                let batch = token_batch(&windows, model.block_length(), device);
                let model = model.init(0, device).with_precision(precision).prepared();
                Box::new(move |_| drop(model.loss(&batch)))
            }
            StepKind::Training => {
                let config = TrainConfig { precision, ..TrainConfig::from_preset(&preset.name)? };
                Box::new(steps(model, &config, windows, device))
            }
        };
        timed(self.steps, device, &mut run)
    }
}

/// Returns the seconds of `count` training steps of a new model of the shape `model`, in micro-batches of `config`,
/// after steps of warm-up. `accumulate` does not count: a step has one micro-batch.
///
/// # Errors
/// When the device fails.
pub fn training_seconds(
    model: &ModelConfig,
    config: &TrainConfig,
    count: u64,
    device: &Device,
) -> Result<Vec<f64>, BenchError> {
    let window = |i| Window {
        ids: token_ids(i, config.context, model.vocab_size()),
        is_token: vec![true; config.context],
    };
    let windows = (0..config.batch).map(window).collect();
    timed(count, device, &mut steps(model, config, windows, device))
}

/// Returns training steps on the same windows.
fn steps(
    model: &ModelConfig,
    config: &TrainConfig,
    windows: Vec<Window>,
    device: &Device,
) -> impl FnMut(u64) + use<> {
    let schedule = Schedule::new(config);
    let mut trainer: Trainer = Trainer::new(model, config, device);
    move |step| {
        trainer.step(std::slice::from_ref(&windows), schedule.rate(step));
    }
}

/// Returns the seconds of `count` steps, after steps of warm-up.
fn timed(count: u64, device: &Device, run: &mut dyn FnMut(u64)) -> Result<Vec<f64>, BenchError> {
    let mut seconds = Vec::new();
    for step in 1..=WARM_UP + count {
        let start = Instant::now();
        run(step);
        device.sync()?;
        if step > WARM_UP {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}
