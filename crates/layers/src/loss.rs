//! Cross-entropy over tokens.

use block_transformer_kernels::columns;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::linear::project;
use crate::products::multiply;
use crate::total::total;

/// The negative log-likelihood of each target, in nats.
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
/// - `targets`: `[rows]`
/// - output: `[rows]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, _] = logits.dims();
    log_softmax(logits, 1).gather(1, targets.reshape([rows, 1])).reshape([rows]).neg()
}

/// Number of logits that [`linear_cross_entropy`] holds at a time: 128 MiB of f32.
const CHUNK_LOGITS: usize = 1 << 25;

/// The mean cross-entropy of `softmax(hidden weight)` in nats, where `weights` is the weight of each
/// row in the mean.
///
/// The logits are by far the largest tensor of a small model. They are computed for a few rows at a
/// time, on an autodiff device together with their gradient. Neither the logits nor their softmax
/// are kept. The result has the gradient of the plain formula.
///
/// # Shapes
/// - `hidden`: `[rows, width]`
/// - `weight`: `[width, vocab]`, or in panels without autodiff; the operands of the products have its format
/// - `targets`, `weights`: `[rows]`
/// - output: `[1]`
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> Tensor<1> {
    let [rows, width] = hidden.dims();
    let vocab = columns(&weight, width);
    // for inference only; the products below need the matrix itself
    let in_panels = vocab != weight.dims()[1];
    let (stored, computed, tracked) = (weight.dtype(), hidden.dtype(), hidden.is_autodiff());
    if tracked
        && let Some(loss) = block_transformer_kernels::linear_cross_entropy(
            &hidden,
            &weight,
            &targets,
            &weights,
            CHUNK_LOGITS,
        )
    {
        return loss;
    }
    let narrow = tracked || block_transformer_kernels::multiplies(&hidden.device(), stored);
    let format = if narrow { stored } else { computed };
    let weight = if stored == computed || in_panels { weight } else { weight.cast(computed) };
    let (h, w) = (hidden.clone().without_autodiff(), weight.clone().without_autodiff());
    let (targets, weights) = (targets.without_autodiff(), weights.without_autodiff());
    let weights = (weights.clone() / total(weights)).reshape([rows, 1]);
    let targets = targets.reshape([rows, 1]);
    let mut loss = Tensor::<1>::zeros([1], &h.device());
    let (mut d_hidden, mut d_weight) = (Vec::new(), None);
    let chunk_rows = (CHUNK_LOGITS / vocab).max(1);
    for start in (0..rows).step_by(chunk_rows) {
        let count = chunk_rows.min(rows - start);
        let h = h.clone().narrow(0, start, count);
        let target = targets.clone().narrow(0, start, count);
        let weight = weights.clone().narrow(0, start, count);
        let logits = if in_panels {
            project(h.clone(), w.clone(), None)
        } else {
            multiply(h.clone(), w.clone(), format)
        }; // [count, vocab]
        let log_p = log_softmax(logits.clone(), 1).gather(1, target.clone());
        loss = loss - total(log_p * weight.clone());
        if tracked {
            // d loss / d logits = weight * (p - onehot); the weight is applied to the small factors
            // one value per row, so that no two atomic additions of a GPU meet
            let minus = Tensor::ones([count, 1], &logits.device()).neg();
            let d = softmax(logits, 1).scatter(1, target, minus, IndexingUpdateOp::Add);
            let d_h = multiply(d.clone(), w.clone().transpose(), format);
            d_hidden.push(d_h * weight.clone());
            let d = multiply((h * weight).transpose(), d, format);
            d_weight = Some(match d_weight {
                None => d,
                Some(sum) => d + sum,
            });
        }
    }
    let Some(d_weight) = d_weight else { return loss };
    // a sum with the gradients that are computed above; its value cancels
    let surrogate = total(hidden * Tensor::from_inner(Tensor::cat(d_hidden, 0)))
        + total(weight * Tensor::from_inner(d_weight));
    Tensor::from_inner(loss) + surrogate.clone() - surrogate.detach()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn value_and_gradients_equal_the_plain_formula() {
        let device = Device::flex().autodiff();
        let random = |shape: [usize; 2]| {
            Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
        };
        let (hidden, weight) = (random([7, 5]), random([5, 11]));
        let targets = Tensor::<1, Int>::from_ints([0, 10, 3, 3, 9, 1, 5], &device);
        let weights = Tensor::<1>::from_floats([1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0], &device);
        let plain = cross_entropy(hidden.clone().matmul(weight.clone()), targets.clone());
        let plain = (plain * weights.clone()).sum() / 5.0;
        let fused = linear_cross_entropy(hidden.clone(), weight.clone(), targets, weights);
        let close = |a: Tensor<2>, b: Tensor<2>| {
            let most = (a - b).abs().max().into_scalar::<f32>();
            assert!(most < 1e-6, "{most}");
        };
        close(plain.clone().inner().unsqueeze(), fused.clone().inner().unsqueeze());
        // scaled, to detect a gradient that ignores the operations after the loss
        let (ours, theirs) = ((fused * 3.0).backward(), (plain * 3.0).backward());
        for tensor in [hidden, weight] {
            close(tensor.grad(&ours).unwrap(), tensor.grad(&theirs).unwrap());
        }
    }
}
