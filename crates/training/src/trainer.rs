//! A model with its optimizer, one step at a time.

use block_transformer_datasets::{Packing, Window};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig};
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};

use crate::{TrainConfig, gradients, token_batch};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean loss of the micro-batches before the step.
    pub loss: f64,
    /// Global norm of the averaged gradient before clipping.
    pub grad_norm: f64,
}

/// A model in training.
pub struct Trainer {
    pub(crate) model: LanguageModel,
    pub(crate) optimizer: ModuleOptimizer,
    block_length: usize,
    device: Device,
    clip: f64,
}

impl Trainer {
    /// A new model from the seed of `config`.
    pub fn new(model: &ModelConfig, config: &TrainConfig, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let weights = model.init(config.seed, &device);
        Self::from_parts(weights, optimizer(config), model.block_length(), config.clip, device)
    }

    /// `model` is on `device`, which is an autodiff device.
    pub(crate) fn from_parts(
        model: LanguageModel,
        optimizer: ModuleOptimizer,
        block_length: usize,
        clip: f64,
        device: Device,
    ) -> Self {
        Self { model, optimizer, block_length, device, clip }
    }

    /// The model, on an autodiff device.
    pub fn model(&self) -> &LanguageModel {
        &self.model
    }

    /// One step over `micro_batches`. When loss or norm is not finite, nothing is changed.
    ///
    /// Takes the trainer by value, as burn's optimizers take the model: weights that nobody else
    /// holds are updated in place.
    pub fn step(mut self, micro_batches: &[Vec<Window>], lr: f64) -> (Self, StepResult) {
        let mut sum = None;
        let mut losses: Option<Tensor<1>> = None;
        for windows in micro_batches {
            let batch = token_batch(windows, self.block_length, &self.device);
            let loss = self.model.loss(&batch);
            let value = loss.clone().inner();
            losses = Some(match losses {
                Some(losses) => losses + value,
                None => value,
            });
            let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
            sum = Some(gradients::add(&self.model, sum, gradients));
        }
        let (Some(losses), Some(sum)) = (losses, sum) else {
            return (self, StepResult { loss: f64::NAN, grad_norm: f64::NAN });
        };
        let n = micro_batches.len() as f64;
        let squares = gradients::sum_of_squares(&self.model, &sum);
        // the one read from the device in a step
        let read = match squares {
            Some(squares) => host(Tensor::cat(vec![losses, squares], 0)),
            None => host(losses),
        };
        let loss = read[0] / n;
        let grad_norm = read.get(1).map_or(f64::NAN, |squares| squares.sqrt() / n);
        if loss.is_finite() && grad_norm.is_finite() {
            let factor = (self.clip / (grad_norm + 1e-6)).min(1.0) / n;
            let gradients = match factor {
                1.0 => sum,
                _ => gradients::scale(&self.model, sum, factor),
            };
            self.model = self.optimizer.step(lr, self.model, gradients);
        }
        (self, StepResult { loss, grad_norm })
    }

    /// Mean loss over `windows` windows spread evenly over `packing`, in batches of `batch`.
    pub fn validate(&self, packing: &Packing, windows: u64, batch: usize) -> f64 {
        let model = self.model.valid();
        let device = self.device.clone().inner();
        let (mut sum, mut count) = (0.0, 0.0);
        let all = packing.windows_per_epoch();
        let windows = windows.min(all);
        let mut first = 0;
        while first < windows {
            let until = windows.min(first + batch as u64);
            let some: Vec<Window> =
                (first..until).map(|i| packing.window(i * all / windows)).collect();
            let predicted = some.iter().flat_map(|window| &window.is_token[self.block_length..]);
            let predicted = predicted.filter(|is_token| **is_token).count() as f64;
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

/// AdamW without state.
pub(crate) fn optimizer(config: &TrainConfig) -> ModuleOptimizer {
    AdamWConfig::new()
        .with_beta_1(config.beta1 as f32)
        .with_beta_2(config.beta2 as f32)
        .with_epsilon(config.epsilon as f32)
        .with_weight_decay(config.weight_decay as f32)
        .init()
}

fn host(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}
