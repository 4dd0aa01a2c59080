//! Linear layers in training, with their derivative.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, AutodiffBackend, Flex};
use burn::tensor::{Shape, Tensor};
use rayon::prelude::*;

use super::matmul::{Matrix, add_values, product};
use super::parts::{contiguous, tensor, values};

type Tracked = Autodiff<Flex, NoCheckpointing>;

/// Columns per task of a sum over rows.
const TASK_COLUMNS: usize = 128;

/// See [`crate::tracked_linear`].
pub(crate) fn tracked_linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    let (mut shape, [k, n]) = (x.dims(), weight.dims());
    shape[D - 1] = n;
    let x = x.clone().try_into_primitive::<Tracked>().ok()?;
    let weight = weight.clone().try_into_primitive::<Tracked>().ok()?;
    let bias = match bias {
        Some(bias) => Some(bias.clone().try_into_primitive::<Tracked>().ok()?),
        None => None,
    };
    let flat = match &bias {
        Some(bias) => Some(contiguous(bias.primitive())?),
        None => None,
    };
    let (rows, b) = (contiguous(x.primitive())?, Matrix::of(weight.primitive())?);
    let out = product(Matrix::new(values(&rows), k), b, flat.as_ref().map(values));
    let out = tensor(out, Shape::new(shape));
    // a constant in place of the bias that there is not
    let third = bias.unwrap_or_else(|| Tracked::from_inner(out.clone()));
    let state = Saved {
        x: weight.is_tracked().then_some(rows),
        weight: x.is_tracked().then(|| weight.primitive().clone()),
    };
    let nodes = [x.node(), weight.node(), third.node()];
    let out = match Linear.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    Some(Tensor::from_primitive::<Tracked>(out))
}

#[derive(Debug)]
struct Linear;

/// The operands, each where the gradient of the other is needed.
#[derive(Clone, Debug)]
struct Saved {
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
}

/// The number of columns of a contiguous tensor, whose last dimension they are.
fn columns(x: &FlexTensor) -> usize {
    x.layout().shape().last().copied().unwrap_or(1)
}

impl Backward<Flex, 3> for Linear {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_out = grads.consume::<Flex>(&ops.node).to_contiguous();
        let n = columns(&d_out);
        let d = Matrix::new(values(&d_out), n);
        let [of_x, of_weight, of_bias] = ops.parents;
        if let (Some(node), Some(weight)) = (of_x, &ops.state.weight) {
            let weight = Matrix::of(weight).expect("the forward pass used it").transposed();
            let mut shape = d_out.layout().shape().clone();
            let last = shape.num_dims() - 1;
            shape[last] = weight.columns();
            grads.register::<Flex>(node.id, tensor(product(d, weight, None), shape));
        }
        if let (Some(node), Some(x)) = (of_weight, &ops.state.x) {
            let k = columns(x);
            let d_weight = product(Matrix::new(values(x), k).transposed(), d, None);
            grads.register::<Flex>(node.id, tensor(d_weight, Shape::new([k, n])));
        }
        if let Some(node) = of_bias {
            let sums = sums_of_columns(values(&d_out), n);
            grads.register::<Flex>(node.id, tensor(sums, Shape::new([n])));
        }
    }
}

/// The sum of the rows of `x` `[rows, columns]`, in their order.
fn sums_of_columns(x: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    sums.par_chunks_mut(TASK_COLUMNS).enumerate().for_each(|(i, sums)| {
        let first = i * TASK_COLUMNS;
        for row in x.chunks_exact(columns) {
            add_values(sums, &row[first..first + sums.len()]);
        }
    });
    sums
}

#[cfg(test)]
mod tests {
    use burn::tensor::module::linear;

    use super::*;
    use crate::flex::gradient_tests::{check, random};

    #[test]
    fn values_and_gradients_are_those_of_burn_with_any_number_of_threads() {
        // several parts along rows, along columns and along both, sums over several blocks, and products that
        // `gemm` computes by other means
        let sizes = [
            [1, 1, 1],
            [1, 40, 70],
            [9, 2, 1],
            [5, 7, 3],
            [70, 30, 33],
            [300, 600, 130],
            [257, 100, 700],
            // a part of one column would remain
            [300, 385, 100],
            [256, 385, 385],
            [600, 577, 300],
            [700, 90, 257],
            [130, 1100, 70],
        ];
        for [m, k, n] in sizes {
            let inputs = random(&[[m, k], [k, n], [1, n]]);
            let bias = |x: &Tensor<2>| x.clone().reshape([n]);
            check(
                &inputs,
                &|x| tracked_linear(&x[0], &x[1], Some(&bias(&x[2]))).unwrap(),
                &|x| linear(x[0].clone(), x[1].clone(), Some(bias(&x[2]))),
                0.0,
            );
            check(
                &inputs[..2],
                &|x| tracked_linear(&x[0], &x[1], None).unwrap(),
                &|x| linear(x[0].clone(), x[1].clone(), None),
                0.0,
            );
        }
    }

    #[test]
    fn operands_may_be_transposed_and_have_more_dimensions() {
        let inputs = random(&[[33, 60], [70, 33]]);
        check(
            &inputs,
            &|x| {
                let a = x[0].clone().transpose().reshape([3, 20, 33]);
                let out = tracked_linear(&a, &x[1].clone().transpose(), None).unwrap();
                out.reshape([60, 70])
            },
            &|x| linear(x[0].clone().transpose(), x[1].clone().transpose(), None),
            0.0,
        );
    }
}
