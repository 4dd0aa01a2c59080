//! The mean cross-entropy of a linear layer's softmax in training, with its derivative.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Int, Shape, Tensor};
use rayon::prelude::*;

use super::matmul::{Matrix, add_product, product};
use super::parts::{contiguous, tensor, values};
use super::simd::math::exp;
use crate::host::max_of;

type Tracked = Autodiff<Flex, NoCheckpointing>;

/// Terms of a softmax denominator that are added in f32.
const PART: usize = 1 << 10;
/// Elements per task of a product with a number.
const TASK: usize = 1 << 15;

/// See [`crate::linear_cross_entropy`].
pub(crate) fn linear_cross_entropy(
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Tensor<1, Int>,
    weights: &Tensor<1>,
    chunk_logits: usize,
) -> Option<Tensor<1>> {
    let hidden = hidden.clone().try_into_primitive::<Tracked>().ok()?;
    let weight = weight.clone().try_into_primitive::<Tracked>().ok()?;
    let h = contiguous(hidden.primitive())?;
    let w = Matrix::of(weight.primitive())?;
    let targets: Vec<usize> = targets.to_data().iter::<i64>().map(|id| id as usize).collect();
    let weights: Vec<f32> = weights.to_data().iter::<f32>().collect();
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let rows = targets.len();
    assert!(rows > 0 && weights.len() == rows, "one target and one weight per row");
    let mut all = Chunks {
        h: values(&h),
        w,
        targets: &targets,
        weights: weights.iter().map(|&weight| (f64::from(weight) / total) as f32).collect(),
        loss: 0.0,
        d_hidden: hidden.is_tracked().then(|| Vec::with_capacity(values(&h).len())),
        d_weight: None,
    };
    let parts = (rows * w.columns()).div_ceil(chunk_logits).min(rows);
    let count = rows.div_ceil(parts);
    for start in (0..rows).step_by(count) {
        all.add(start..rows.min(start + count), weight.is_tracked());
    }
    let loss = tensor(vec![all.loss as f32], Shape::new([1]));
    let shapes = [&hidden, &weight].map(|x| x.primitive().layout().shape().clone());
    let gradients = [all.d_hidden, all.d_weight];
    let state = gradients.into_iter().zip(shapes).map(|(x, shape)| Some(tensor(x?, shape)));
    let nodes = [hidden.node(), weight.node()];
    let op = CrossEntropy.prepare::<NoCheckpointing>(nodes).compute_bound();
    let loss = match op.stateful() {
        OpsKind::Tracked(prep) => prep.finish(state.collect(), loss),
        OpsKind::UnTracked(prep) => prep.finish(loss),
    };
    Some(Tensor::from_primitive::<Tracked>(loss))
}

#[derive(Debug)]
struct CrossEntropy;

impl Backward<Flex, 2> for CrossEntropy {
    /// The gradients of the hidden states and of the weight, where they are needed.
    type State = Vec<Option<FlexTensor>>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_loss = grads.consume::<Flex>(&ops.node).to_contiguous();
        let d_loss = values(&d_loss)[0];
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(mut gradient)) = (parent, gradient) {
                if d_loss != 1.0 {
                    let all = gradient.storage_mut::<f32>().par_chunks_mut(TASK);
                    all.for_each(|x| multiply(x, d_loss));
                }
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// The sums over the chunks of rows that are done.
struct Chunks<'a> {
    h: &'a [f32],
    w: Matrix<'a>,
    targets: &'a [usize],
    /// The weight of each row in the mean.
    weights: Vec<f32>,
    loss: f64,
    d_hidden: Option<Vec<f32>>,
    d_weight: Option<Vec<f32>>,
}

impl Chunks<'_> {
    fn add(&mut self, rows: Range<usize>, of_weight: bool) {
        let width = self.h.len() / self.targets.len();
        let h = Matrix::new(&self.h[rows.start * width..rows.end * width], width);
        let mut logits = product(h, self.w, None); // [rows, vocab]
        let (targets, weights) = (&self.targets[rows.clone()], &self.weights[rows]);
        let vocab = self.w.columns();
        let losses: Vec<f64> = logits
            .par_chunks_exact_mut(vocab)
            .zip(targets)
            .zip(weights)
            .map(|((logits, &target), &weight)| loss_and_gradient(logits, target, weight))
            .collect();
        self.loss += losses.iter().sum::<f64>();
        let d_logits = Matrix::new(&logits, vocab);
        if let Some(d_hidden) = &mut self.d_hidden {
            d_hidden.extend(product(d_logits, self.w.transposed(), None));
        }
        if of_weight {
            match &mut self.d_weight {
                None => self.d_weight = Some(product(h.transposed(), d_logits, None)),
                Some(sum) => add_product(sum, h.transposed(), d_logits),
            }
        }
    }
}

vectorized! {
    /// Returns the loss of a row times `weight`, and replaces the logits by its gradient
    /// `weight * (softmax - onehot)`. The terms of the softmax denominator are added in 16 running sums per
    /// [`PART`], and these in f64.
    fn loss_and_gradient(logits: &mut [f32], target: usize, weight: f32) -> f64 {
        let of_target = logits[target];
        let largest = max_of(logits);
        let mut sum = 0.0;
        for part in logits.chunks_mut(PART) {
            let mut sums = [0.0_f32; 16];
            let (chunks, rest) = part.as_chunks_mut::<16>();
            for x in chunks {
                for i in 0..16 {
                    x[i] = exp(x[i] - largest);
                    sums[i] += x[i];
                }
            }
            for x in rest {
                *x = exp(*x - largest);
                sums[0] += *x;
            }
            sum += sums.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
        let scale = (f64::from(weight) / sum) as f32;
        for x in logits.iter_mut() {
            *x *= scale;
        }
        logits[target] -= weight;
        // in f64 the difference of two f32 values is exact
        f64::from(weight) * (sum.ln() + (f64::from(largest) - f64::from(of_target)))
    }
}

vectorized! {
    fn multiply(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::flex::gradient_tests::{check, random};

    /// The error relative to the largest value: the roundings of the logits and of burn's sums over a row.
    const TOLERANCE: f32 = 2e-5;

    #[test]
    fn the_loss_and_its_gradients_are_those_of_the_formula_with_any_number_of_threads() {
        for [rows, width, vocab] in [[1, 3, 5], [7, 5, 11], [50, 20, 700], [300, 40, 1500]] {
            let inputs = random(&[[rows, width], [width, vocab]]);
            let targets: Vec<i64> = (0..rows as i64).map(|i| i * 7919 % vocab as i64).collect();
            let weights: Vec<f32> = (0..rows).map(|i| [1.0, 0.5, 0.0][i % 3]).collect();
            let total: f32 = weights.iter().sum();
            let device = Device::flex().autodiff();
            let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &device);
            let weights = Tensor::<1>::from_data(TensorData::new(weights, [rows]), &device);
            for chunk_logits in [1, vocab * 3, 1 << 30] {
                check(
                    &inputs,
                    &|x| {
                        let loss =
                            linear_cross_entropy(&x[0], &x[1], &targets, &weights, chunk_logits);
                        // scaled, to detect a gradient that ignores the operations after the loss
                        loss.unwrap().reshape([1, 1]).repeat_dim(1, 3) * 3.0
                    },
                    &|x| {
                        let logits = x[0].clone().matmul(x[1].clone());
                        let targets = targets.clone().reshape([rows, 1]);
                        let log_p = log_softmax(logits, 1).gather(1, targets).reshape([rows]);
                        let loss = (log_p * weights.clone()).sum() / -total;
                        loss.reshape([1, 1]).repeat_dim(1, 3) * 3.0
                    },
                    TOLERANCE,
                );
            }
        }
    }
}
