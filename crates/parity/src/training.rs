//! Gradients and optimizer steps on the recorded batch.

use block_transformer_training::apply_update;
use block_transformer_weights::{HostTensors, Source, published_tensors};
use block_transformer_zoo::{Family, Precision};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;

use crate::case::Case;
use crate::error::ParityError;

/// Returns the gradients of the mean loss by published name.
pub(crate) fn gradients(
    case: &Case,
    device: &Device,
    precision: Precision,
) -> Result<HostTensors, ParityError> {
    let device = device.clone().autodiff();
    let model = case.model(&device)?;
    // as in a training step, gradients pass through the cast to the f32 weights
    let loss = model.clone().with_precision(precision).loss(&case.batch(&device)?);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    Ok(published_tensors(&model, &case.config, Source::Gradients(&gradients)))
}

/// Returns the loss before each of `steps` AdamW steps: learning rate 1e-2, betas 0.9/0.95, eps 1e-8, weight
/// decay 0.1 on every parameter, clipping at a global norm of 1.0.
pub(crate) fn adamw_losses(
    case: &Case,
    device: &Device,
    precision: Precision,
    steps: usize,
) -> Result<Vec<f32>, ParityError> {
    let device = device.clone().autodiff();
    let mut model = case.model(&device)?;
    let batch = case.batch(&device)?;
    let mut optimizer =
        AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1).init();
    let mut losses = Vec::with_capacity(steps);
    for _ in 0..steps {
        let loss = model.clone().with_precision(precision).loss(&batch);
        let value = loss.clone().inner();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let result;
        (model, result) = apply_update(model, &mut optimizer, value, gradients, 1, 1.0, 1e-2);
        losses.push(result.loss as f32);
    }
    Ok(losses)
}
