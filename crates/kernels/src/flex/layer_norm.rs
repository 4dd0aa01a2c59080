//! Layer norm in training, with its derivative.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Shape, Tensor};

use super::matmul::add_values;
use super::parts::{DisjointSlices, contiguous, in_parts, tensor, values};

type Tracked = Autodiff<Flex, NoCheckpointing>;

/// Rows per task. A task adds the gradients of the parameters over its rows, so that their order does not depend
/// on the number of threads.
const TASK_ROWS: usize = 32;

/// See [`crate::layer_norm`].
pub(crate) fn layer_norm(
    x: &Tensor<2>,
    gamma: &Tensor<1>,
    beta: &Tensor<1>,
    epsilon: f64,
) -> Option<Tensor<2>> {
    // burn has a kernel without a derivative
    if !x.is_autodiff() {
        return None;
    }
    let x = x.clone().try_into_primitive::<Tracked>().ok()?;
    let gamma = gamma.clone().try_into_primitive::<Tracked>().ok()?;
    let beta = beta.clone().try_into_primitive::<Tracked>().ok()?;
    let inputs = [x.primitive(), gamma.primitive(), beta.primitive()];
    let [Some(rows), Some(scale), Some(shift)] = inputs.map(contiguous) else { return None };
    let (out, statistics) = forward(values(&rows), values(&scale), values(&shift), epsilon as f32);
    let out = tensor(out, rows.layout().shape().clone());
    let nodes = [x.node(), gamma.node(), beta.node()];
    let state = Saved { x: rows, gamma: scale, statistics };
    let out = match LayerNorm.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    Some(Tensor::from_primitive::<Tracked>(out))
}

#[derive(Debug)]
struct LayerNorm;

#[derive(Clone, Debug)]
struct Saved {
    x: FlexTensor,
    gamma: FlexTensor,
    /// Of each row.
    statistics: Vec<Statistics>,
}

/// The mean and the inverse of the standard deviation of a row.
#[derive(Clone, Copy, Debug, Default)]
struct Statistics {
    mean: f32,
    inverse: f32,
}

impl Backward<Flex, 3> for LayerNorm {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Saved { x, gamma, statistics } = ops.state;
        let d_out = grads.consume::<Flex>(&ops.node).to_contiguous();
        let gradients = backward(values(&d_out), values(&x), values(&gamma), &statistics);
        let vector = Shape::new([values(&gamma).len()]);
        let shapes = [x.layout().shape().clone(), vector.clone(), vector];
        for (parent, (gradient, shape)) in
            ops.parents.into_iter().zip(gradients.into_iter().zip(shapes))
        {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, tensor(gradient, shape));
            }
        }
    }
}

/// The output and the statistics of all rows.
fn forward(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> (Vec<f32>, Vec<Statistics>) {
    let width = gamma.len();
    let mut statistics = vec![Statistics::default(); x.len() / width];
    let all = DisjointSlices::new(&mut statistics);
    let out = in_parts(x.len(), TASK_ROWS * width, |i, out| {
        // SAFETY: only this task uses the statistics of its rows
        let statistics = unsafe { all.slice(i * TASK_ROWS, out.len() / width) };
        normalize(out, &x[i * TASK_ROWS * width..], gamma, beta, epsilon, statistics);
    });
    (out, statistics)
}

/// The gradients of `x`, `gamma` and `beta`.
fn backward(d_out: &[f32], x: &[f32], gamma: &[f32], statistics: &[Statistics]) -> [Vec<f32>; 3] {
    let width = gamma.len();
    let tasks = statistics.len().div_ceil(TASK_ROWS);
    let mut of_tasks = vec![0.0; tasks * 2 * width];
    let all = DisjointSlices::new(&mut of_tasks);
    let d_x = in_parts(x.len(), TASK_ROWS * width, |i, d_x| {
        let (row, first) = (i * TASK_ROWS, i * TASK_ROWS * width);
        // SAFETY: only this task uses its gradients of the parameters
        let parameters = unsafe { all.slice(i * 2 * width, 2 * width) };
        gradients(d_x, &d_out[first..], &x[first..], gamma, &statistics[row..], parameters);
    });
    let mut parameters = vec![0.0; 2 * width];
    for of_task in of_tasks.chunks_exact(2 * width) {
        add_values(&mut parameters, of_task);
    }
    let d_beta = parameters.split_off(width);
    [d_x, parameters, d_beta]
}

/// The sum of `term` of each place below `count`, in 16 running sums.
#[inline(always)]
fn sum_of(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; 16];
    let whole = count / 16 * 16;
    for first in (0..whole).step_by(16) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += term(first + i);
        }
    }
    sums.iter().sum::<f32>() + (whole..count).map(term).sum::<f32>()
}

vectorized! {
    fn normalize(
        out: &mut [f32],
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        epsilon: f32,
        statistics: &mut [Statistics],
    ) {
        let width = gamma.len();
        let beta = &beta[..width];
        let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((out, x), statistics) in rows.zip(statistics) {
            let (x, out) = (&x[..width], &mut out[..width]);
            let mean = sum_of(width, |i| x[i]) / width as f32;
            let variance = sum_of(width, |i| (x[i] - mean) * (x[i] - mean)) / width as f32;
            let inverse = 1.0 / (variance + epsilon).sqrt();
            for i in 0..width {
                out[i] = (x[i] - mean) * inverse * gamma[i] + beta[i];
            }
            *statistics = Statistics { mean, inverse };
        }
    }
}

vectorized! {
    /// Writes the gradient of `x` and adds those of `gamma` and `beta` to `parameters`. With `g = d_out * gamma`
    /// and the normalized row `n`: `d_x = (g - mean(g) - n * mean(g * n)) * inverse`
    fn gradients(
        d_x: &mut [f32],
        d_out: &[f32],
        x: &[f32],
        gamma: &[f32],
        statistics: &[Statistics],
        parameters: &mut [f32],
    ) {
        let width = gamma.len();
        let (d_gamma, d_beta) = parameters.split_at_mut(width);
        let d_beta = &mut d_beta[..width];
        let rows = d_out.chunks_exact(width).zip(x.chunks_exact(width));
        for ((d_x, (d_out, x)), statistics) in d_x.chunks_exact_mut(width).zip(rows).zip(statistics) {
            let (d_x, d_out, x) = (&mut d_x[..width], &d_out[..width], &x[..width]);
            let Statistics { mean, inverse } = *statistics;
            let of_g = sum_of(width, |i| d_out[i] * gamma[i]) / width as f32;
            let of_normal = sum_of(width, |i| d_out[i] * gamma[i] * ((x[i] - mean) * inverse));
            let of_normal = of_normal / width as f32;
            for i in 0..width {
                let normal = (x[i] - mean) * inverse;
                d_x[i] = (d_out[i] * gamma[i] - of_g - normal * of_normal) * inverse;
                d_gamma[i] += d_out[i] * normal;
                d_beta[i] += d_out[i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::module;

    use super::*;
    use crate::flex::gradient_tests::{check, random};

    /// The error relative to the largest value: the roundings of sums of up to 700 terms.
    const TOLERANCE: f32 = 5e-6;

    #[test]
    fn values_and_gradients_are_those_of_burn_with_any_number_of_threads() {
        for [rows, width] in [[1, 1], [3, 5], [31, 16], [32, 33], [100, 256], [65, 700]] {
            let inputs = random(&[[rows, width], [1, width], [1, width]]);
            let vector = |x: &Tensor<2>| x.clone().reshape([width]);
            check(
                &inputs,
                &|x| layer_norm(&x[0], &vector(&x[1]), &vector(&x[2]), 1e-5).unwrap(),
                &|x| module::layer_norm(x[0].clone(), vector(&x[1]), Some(vector(&x[2])), 1e-5),
                TOLERANCE,
            );
        }
    }
}
