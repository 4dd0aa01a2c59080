//! A model with its optimizer, one step at a time.

use std::sync::Arc;

use block_transformer_collectives::{Collective, CollectiveError, Wire};
use block_transformer_datasets::{Packing, Window};
use block_transformer_layers::{recompute_layers, watch_layers};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, Precision};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};

use crate::batch::{num_predicted, token_batch};
use crate::buckets::{GradientSum, Plan};
use crate::config::TrainConfig;
use crate::distill::Teacher;
use crate::gradients;
use crate::optimizer::optimizer;
use crate::reading::ReadPolicy;
use crate::skipping::SkipFlag;
use crate::update::{StepResult, StepValues, host, queue_update, read_update};

const HELD: &str = "the optimizer returned the model";

/// Windows of a micro-batch, with their weight.
pub(crate) struct WeightedWindows {
    pub windows: Vec<Window>,
    /// The part of the micro-batch's predicted tokens that these windows contain: the weight of their
    /// mean loss in the mean loss of the micro-batch.
    pub weight: f64,
}

/// A model of any family in training.
pub struct Trainer<M: Family = LanguageModel> {
    /// `None` only while the optimizer has the model, because burn's optimizers take it by value.
    model: Option<M>,
    optimizer: ModuleOptimizer,
    /// Skips a step of the optimizer, if the optimizer is this crate's.
    skip: Option<SkipFlag>,
    block_length: usize,
    device: Device,
    clip: f64,
    precision: Precision,
    recompute: bool,
    teacher: Option<Teacher>,
    /// The format of gradients between processes.
    wire: Wire,
    /// Whether gradients are sent while others are computed.
    overlap: bool,
    /// The order of the gradients in sums that go on by themselves.
    plan: Option<Arc<Plan>>,
}

impl<M: Family> Trainer<M> {
    /// Creates a trainer of a new model. Its initial weights depend on the seed of `config`.
    pub fn new(model: &M::Config, config: &TrainConfig, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let weights = M::init(model, config.seed, &device);
        let (optimizer, skip) = optimizer(config);
        Self::from_parts(weights, optimizer, config, device).skipping_by(skip)
    }

    /// Creates a trainer of `model`, which must be on `device`, an autodiff device.
    pub fn from_parts(
        model: M,
        optimizer: ModuleOptimizer,
        config: &TrainConfig,
        device: Device,
    ) -> Self {
        let block_length = model.config().block_length();
        let TrainConfig { clip, precision, recompute, wire, overlap, .. } = *config;
        Self {
            model: Some(model),
            optimizer,
            skip: None,
            block_length,
            device,
            clip,
            precision,
            recompute,
            teacher: None,
            wire,
            overlap,
            plan: None,
        }
    }

    /// The trainer, whose optimizer skips steps by `skip`.
    pub(crate) fn skipping_by(self, skip: SkipFlag) -> Self {
        Self { skip: Some(skip), ..self }
    }

    /// The trainer, whose model also learns the distribution of `teacher`.
    pub(crate) fn taught_by(self, teacher: Option<Teacher>) -> Self {
        Self { teacher, ..self }
    }

    /// The model, on an autodiff device.
    ///
    /// # Panics
    /// After a panic inside [`step`](Self::step).
    pub fn model(&self) -> &M {
        self.model.as_ref().expect(HELD)
    }

    /// The autodiff device of the model.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The optimizer with its state.
    pub fn optimizer(&self) -> &ModuleOptimizer {
        &self.optimizer
    }

    /// Runs one step over `micro_batches` and averages their gradients. If the loss or the norm of
    /// the gradient is not finite, weights and moments do not change.
    pub fn step(&mut self, micro_batches: &[Vec<Window>], lr: f64) -> StepResult {
        let values = self.queue(micro_batches, lr, ReadPolicy::EveryStep);
        StepValues::read_all(vec![values]).pop().unwrap_or(StepResult::NONE)
    }

    /// [`step`](Self::step), whose result stays on the device unless `reading` reads every step.
    pub(crate) fn queue(
        &mut self,
        micro_batches: &[Vec<Window>],
        lr: f64,
        reading: ReadPolicy,
    ) -> StepValues {
        let parts = micro_batches.iter().map(|windows| (&windows[..], 1.0));
        match self.sums(parts) {
            Some(sums) => self.update(sums, micro_batches.len(), lr, reading),
            None => StepValues::Read(StepResult::NONE),
        }
    }

    /// [`queue`](Self::queue) for one rank of several: `parts` is its share of `count` micro-batches, and
    /// `ranks` adds the others' shares.
    pub(crate) fn queue_share(
        &mut self,
        parts: &[WeightedWindows],
        count: usize,
        lr: f64,
        reading: ReadPolicy,
        ranks: &Arc<dyn Collective>,
    ) -> Result<StepValues, CollectiveError> {
        let sums = if ranks.begins_sums() {
            self.sums_in_buckets(parts, ranks)?
        } else {
            self.sums_at_once(parts, &**ranks)?
        };
        Ok(self.update(sums, count, lr, reading))
    }

    /// The sums of all ranks, after the backward passes.
    fn sums_at_once(
        &self,
        parts: &[WeightedWindows],
        ranks: &dyn Collective,
    ) -> Result<(Tensor<1>, GradientsParams), CollectiveError> {
        let sums = self.sums(parts.iter().map(|part| (&part.windows[..], part.weight)));
        let (losses, gradients) = match sums {
            Some((losses, gradients)) => (losses, Some(gradients)),
            None => (self.no_loss(), None),
        };
        let gradients = gradients::flatten(self.model(), gradients);
        let tensors = std::iter::once(losses).chain(gradients.tensors).collect();
        let mut tensors = ranks.sum(tensors, self.wire)?.into_iter();
        let losses = tensors.next().ok_or(CollectiveError::Lengths)?;
        Ok((losses, gradients::unflatten(self.model(), tensors, &gradients.has_gradient)))
    }

    /// The sums of all ranks in buckets, which begin during the last backward pass.
    fn sums_in_buckets(
        &mut self,
        parts: &[WeightedWindows],
        ranks: &Arc<dyn Collective>,
    ) -> Result<(Tensor<1>, GradientsParams), CollectiveError> {
        let plan = self.plan.take();
        let plan = plan
            .unwrap_or_else(|| Arc::new(Plan::of(self.model(), self.block_length, &self.device)));
        self.plan = Some(plan.clone());
        let of = |part: &'_ WeightedWindows| (part.windows.clone(), part.weight);
        let (last, before) = match parts.split_last() {
            Some((last, before)) => (Some(of(last)), before),
            None => (None, parts),
        };
        let before = self.sums(before.iter().map(|part| (&part.windows[..], part.weight)));
        let (losses, earlier) = match before {
            Some((losses, earlier)) => (Some(losses), Some(earlier)),
            None => (None, None),
        };
        let sum = GradientSum::new(&plan, (ranks, self.wire), self.model(), earlier);
        let last = last.and_then(|(windows, weight)| {
            let last = || self.sums(std::iter::once((&windows[..], weight)));
            if self.overlap { watch_layers(sum.report(), last) } else { last() }
        });
        let (losses, last) = match (losses, last) {
            (Some(losses), Some((value, last))) => (losses + value, Some(last)),
            (Some(losses), None) => (losses, None),
            (None, Some((value, last))) => (value, Some(last)),
            (None, None) => (self.no_loss(), None),
        };
        sum.finish(self.model(), losses, last, &self.device.clone().inner())
    }

    fn no_loss(&self) -> Tensor<1> {
        Tensor::zeros([1], &self.device.clone().inner())
    }

    /// The sums of the losses (`[1]`, off the autodiff graph) and of the gradients of batches, each
    /// with a weight. `None` without batches.
    fn sums<'a>(
        &self,
        batches: impl Iterator<Item = (&'a [Window], f64)>,
    ) -> Option<(Tensor<1>, GradientsParams)> {
        let (mut sum, mut losses) = (None, None::<Tensor<1>>);
        for (windows, weight) in batches {
            let batch = token_batch(windows, self.block_length, &self.device);
            // gradients pass through the cast to the f32 weights
            let model = self.model().clone().with_precision(self.precision);
            let loss = recompute_layers(self.recompute, || match &self.teacher {
                Some(teacher) => teacher.loss(&model, windows, &batch),
                None => model.loss(&batch),
            });
            let loss = if weight == 1.0 { loss } else { loss * weight };
            let value = loss.clone().inner();
            losses = Some(match losses {
                Some(losses) => losses + value,
                None => value,
            });
            let gradients = GradientsParams::from_grads(loss.backward(), self.model());
            sum = Some(gradients::add(self.model(), sum, gradients));
        }
        losses.zip(sum)
    }

    /// Runs the optimizer with sums over `count` micro-batches.
    fn update(
        &mut self,
        (losses, sum): (Tensor<1>, GradientsParams),
        count: usize,
        lr: f64,
        reading: ReadPolicy,
    ) -> StepValues {
        let model = self.model.take().expect(HELD);
        let (optimizer, clip) = (&mut self.optimizer, self.clip);
        let (model, values) = match (reading, &self.skip) {
            (ReadPolicy::EverySteps(_), Some(skip)) => {
                queue_update(model, (optimizer, skip), losses, sum, count, clip, lr)
            }
            (_, skip) => {
                let optimizer = (optimizer, skip.as_ref());
                let (model, result) = read_update(model, optimizer, losses, sum, count, clip, lr);
                (model, StepValues::Read(result))
            }
        };
        self.model = Some(model);
        values
    }

    /// Mean loss in nats per token over `windows` windows spread evenly over `packing`, computed in
    /// batches of `batch`.
    pub fn validate(&self, packing: &Packing, windows: u64, batch: usize) -> f64 {
        let model = self.model().valid();
        let device = self.device.clone().inner();
        let (mut sum, mut count) = (0.0, 0.0);
        let all = packing.windows_per_epoch();
        let windows = windows.min(all);
        let mut first = 0;
        while first < windows {
            let until = windows.min(first + batch as u64);
            let some: Vec<Window> =
                (first..until).map(|i| packing.window(i * all / windows)).collect();
            let predicted = num_predicted(&some, self.block_length) as f64;
            if predicted > 0.0 {
                let loss = model.loss(&token_batch(&some, self.block_length, &device));
                sum += host(loss)[0] * predicted;
                count += predicted;
            }
            first = until;
        }
        sum / count
    }
}
