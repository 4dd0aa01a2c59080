//! A model with its optimizer, one step at a time.

use block_transformer_datasets::{Packing, Window};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, Precision};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};

use crate::batch::token_batch;
use crate::config::TrainConfig;
use crate::gradients;
use crate::update::{StepResult, apply_update, host};

const HELD: &str = "the optimizer returned the model";

/// A model of any family in training.
pub struct Trainer<M: Family = LanguageModel> {
    /// `None` only while the optimizer has the model, because burn's optimizers take it by value.
    model: Option<M>,
    optimizer: ModuleOptimizer,
    block_length: usize,
    device: Device,
    clip: f64,
    precision: Precision,
}

impl<M: Family> Trainer<M> {
    /// Creates a trainer of a new model. Its initial weights depend on the seed of `config`.
    pub fn new(model: &M::Config, config: &TrainConfig, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let weights = M::init(model, config.seed, &device);
        Self::from_parts(weights, adamw(config), config, device)
    }

    /// Creates a trainer of `model`, which must be on `device`, an autodiff device.
    pub fn from_parts(
        model: M,
        optimizer: ModuleOptimizer,
        config: &TrainConfig,
        device: Device,
    ) -> Self {
        let block_length = model.config().block_length();
        let TrainConfig { clip, precision, .. } = *config;
        Self { model: Some(model), optimizer, block_length, device, clip, precision }
    }

    /// The model, on an autodiff device.
    ///
    /// # Panics
    /// After a panic inside [`step`](Self::step).
    pub fn model(&self) -> &M {
        self.model.as_ref().expect(HELD)
    }

    /// The optimizer with its state.
    pub fn optimizer(&self) -> &ModuleOptimizer {
        &self.optimizer
    }

    /// Runs one step over `micro_batches` and averages their gradients. If the loss or the norm of
    /// the gradient is not finite, nothing changes.
    pub fn step(&mut self, micro_batches: &[Vec<Window>], lr: f64) -> StepResult {
        let (mut sum, mut losses) = (None, None::<Tensor<1>>);
        for windows in micro_batches {
            let batch = token_batch(windows, self.block_length, &self.device);
            // gradients pass through the cast to the f32 weights
            let loss = self.model().clone().with_precision(self.precision).loss(&batch);
            let value = loss.clone().inner();
            losses = Some(match losses {
                Some(losses) => losses + value,
                None => value,
            });
            let gradients = GradientsParams::from_grads(loss.backward(), self.model());
            sum = Some(gradients::add(self.model(), sum, gradients));
        }
        let (Some(losses), Some(sum)) = (losses, sum) else {
            return StepResult { loss: f64::NAN, grad_norm: f64::NAN };
        };
        let (count, model) = (micro_batches.len(), self.model.take().expect(HELD));
        let (model, result) =
            apply_update(model, &mut self.optimizer, losses, sum, count, self.clip, lr);
        self.model = Some(model);
        result
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

/// AdamW with the hyper-parameters of `config`, without state.
pub(crate) fn adamw(config: &TrainConfig) -> ModuleOptimizer {
    AdamWConfig::new()
        .with_beta_1(config.beta1 as f32)
        .with_beta_2(config.beta2 as f32)
        .with_epsilon(config.epsilon as f32)
        .with_weight_decay(config.weight_decay as f32)
        .init()
}
