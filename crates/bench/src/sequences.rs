//! The benchmark of losses and training steps.

use std::time::Instant;

use block_transformer_cost::{Machine, Peaks, Sizes, decode};
use block_transformer_device::DeviceName;
use block_transformer_training::apply_update;
use block_transformer_zoo::{
    Family, FamilyConfig, LanguageModel, PaddingMask, Precision, TokenBatch,
};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Int, Tensor};

use crate::candidate::Candidate;
use crate::error::BenchError;
use crate::memory::Growth;
use crate::report::{BenchReport, BenchRow, Spread};

/// Steps that are not counted: the process allocates its memory in them.
const WARM_UP: usize = 2;

/// The computation for a batch of whole sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The loss is computed, without gradients.
    Evaluation,
    /// The loss and its gradients are computed, and the weights are updated.
    Training,
}

/// A benchmark of whole sequences: several models in turn.
#[derive(Clone, Debug)]
pub struct SequenceBench {
    /// The models.
    pub candidates: Vec<Candidate>,
    /// The computation for each batch.
    pub task: Task,
    /// Sequences per batch.
    pub batch: usize,
    /// Tokens per sequence.
    pub context: usize,
    /// Counted steps of each model.
    pub steps: usize,
    /// The device.
    pub device: DeviceName,
}

impl SequenceBench {
    /// Checks that the sequences are two or more whole blocks of every model.
    ///
    /// # Errors
    /// [`BenchError::Context`] when they are not.
    pub fn check(&self) -> Result<(), BenchError> {
        for candidate in &self.candidates {
            let (context, block_length) = (self.context, candidate.config.block_length());
            if !context.is_multiple_of(block_length) || context <= block_length {
                return Err(BenchError::Context { context, block_length });
            }
        }
        Ok(())
    }

    /// Measures every model on `device`, which [`Self::device`] opened.
    ///
    /// # Errors
    /// Those of [`Self::check`], and when the device fails.
    pub fn run(&self, device: &Device) -> Result<BenchReport, BenchError> {
        self.check()?;
        let (mut all_peaks, mut rows) = (Vec::new(), Vec::new());
        for candidate in &self.candidates {
            let before = Peaks::measure(self.device, device)?;
            let growth = Growth::start();
            let seconds = self.measure(candidate, device)?;
            let bytes = growth.bytes();
            let peaks = before.max(Peaks::measure(self.device, device)?);
            rows.extend(self.row(candidate, &peaks.machine(Precision::F32), &seconds, bytes));
            all_peaks.push(peaks);
        }
        let title = match self.task {
            Task::Evaluation => "Loss of whole sequences",
            Task::Training => "Training steps",
        };
        Ok(BenchReport {
            title: title.into(),
            device: self.device,
            precision: Precision::F32,
            peaks: all_peaks,
            rows,
        })
    }

    fn row(
        &self,
        candidate: &Candidate,
        machine: &Machine,
        seconds: &[f64],
        peak_bytes: Option<u64>,
    ) -> Option<BenchRow> {
        let tokens = self.batch * self.context;
        // the matrix products per token are those of decoding; with gradients there are three times
        // as many; the weights are read once per step, with their gradients and moments
        let config = &candidate.config;
        let token = decode(config, tokens, self.context / 2, Sizes::from(machine)).total();
        let (times, name) = match self.task {
            Task::Evaluation => (1.0, "loss"),
            Task::Training => (3.0, "training"),
        };
        let token_flops = times * token.flops() / tokens as f64;
        let bound = machine.flops / token_flops;
        let rates = || seconds.iter().map(|seconds| tokens as f64 / seconds);
        Some(BenchRow {
            model: candidate.name.clone(),
            family: config.family(),
            block_length: config.block_length(),
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
            share: Spread::of(rates().map(|rate| rate / bound))?,
            predicted_share: Spread::of(rates().map(|rate| rate / bound))?,
            loss: None,
        })
    }

    /// Returns the seconds of each counted step.
    fn measure(&self, candidate: &Candidate, device: &Device) -> Result<Vec<f64>, BenchError> {
        let device = match self.task {
            Task::Evaluation => device.clone(),
            Task::Training => device.clone().autodiff(),
        };
        let (shape, config) = ([self.batch, self.context], &candidate.config);
        let uniform = Distribution::Uniform(2.0, config.vocab_size() as f64);
        let batch = TokenBatch {
            ids: Tensor::<2, Int>::random(shape, uniform, &device),
            is_token: PaddingMask::full(),
            block_length: config.block_length(),
        };
        let mut model = candidate.model(&device)?;
        let adam = AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1);
        let mut optimizer = adam.init();
        let mut seconds = Vec::new();
        for step in 0..self.steps + WARM_UP {
            let start = Instant::now();
            match self.task {
                Task::Evaluation => drop(model.loss(&batch)),
                Task::Training => model = trained(model, &batch, &mut optimizer),
            }
            device.sync()?;
            if step >= WARM_UP {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        Ok(seconds)
    }
}

/// Returns the model after a training step.
fn trained(
    model: LanguageModel,
    batch: &TokenBatch,
    optimizer: &mut ModuleOptimizer,
) -> LanguageModel {
    let loss = model.loss(batch);
    let value = loss.clone().inner();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    apply_update(model, optimizer, value, gradients, 1, 1.0, 1e-4).0
}
