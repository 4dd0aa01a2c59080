//! The update of a training step. Parity tests and benchmarks use the same code.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use crate::gradients;

/// Loss and gradient norm of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean loss of the micro-batches before the step, in nats per token.
    pub loss: f64,
    /// Global norm of the averaged gradient before clipping.
    pub grad_norm: f64,
}

impl StepResult {
    /// Whether both values are finite. If not, the step changed nothing.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

/// Averages the gradients of `count` micro-batches, clips them to the global norm `clip`, and runs
/// one optimizer step at learning rate `lr`. `losses` (`[1]`, off the autodiff graph) and `sum` are
/// the sums of the micro-batches' losses and gradients. If the loss or the norm is not finite,
/// nothing changes.
///
/// Takes the model by value, as burn's optimizers do: weights that are not shared are updated in
/// place. (burn's own clipping takes the norm of each tensor separately.)
pub fn apply_update<M: Module>(
    model: M,
    optimizer: &mut ModuleOptimizer,
    losses: Tensor<1>,
    sum: GradientsParams,
    count: usize,
    clip: f64,
    lr: f64,
) -> (M, StepResult) {
    let n = count as f64;
    // the only read from the device in a step
    let read = match gradients::sum_of_squares(&model, &sum) {
        Some(squares) => host(Tensor::cat(vec![losses, squares], 0)),
        None => host(losses),
    };
    let loss = read[0] / n;
    let grad_norm = read.get(1).map_or(f64::NAN, |squares| squares.sqrt() / n);
    let result = StepResult { loss, grad_norm };
    if !result.is_finite() {
        return (model, result);
    }
    // 1e-6 as in torch.nn.utils.clip_grad_norm_
    let factor = (clip / (grad_norm + 1e-6)).min(1.0) / n;
    let gradients = match factor {
        1.0 => sum,
        _ => gradients::scale(&model, sum, factor),
    };
    (optimizer.step(lr, model, gradients), result)
}

pub(crate) fn host(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}
