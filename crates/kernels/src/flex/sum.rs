//! The sum of three tensors in training, with its derivative.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::parts::{contiguous, in_parts, tensor, values};

type Tracked = Autodiff<Flex, NoCheckpointing>;

/// Elements per task.
const TASK: usize = 1 << 14;

/// See [`crate::tracked_sum`].
pub(crate) fn tracked_sum<const D: usize>(terms: [&Tensor<D>; 3]) -> Option<Tensor<D>> {
    let terms = terms.map(|term| term.clone().try_into_primitive::<Tracked>());
    let [Ok(a), Ok(b), Ok(c)] = terms else { return None };
    let elements = [&a, &b, &c].map(|term| contiguous(term.primitive()));
    let [Some(x), Some(y), Some(z)] = &elements else { return None };
    let shape = x.layout().shape().clone();
    if [y, z].iter().any(|term| *term.layout().shape() != shape) {
        return None;
    }
    let [x, y, z] = [x, y, z].map(values);
    let out = in_parts(x.len(), TASK, |i, out| {
        add(out, &x[i * TASK..], &y[i * TASK..], &z[i * TASK..]);
    });
    let out = tensor(out, shape);
    let nodes = [a.node(), b.node(), c.node()];
    let out = Sum.prepare::<NoCheckpointing>(nodes).compute_bound().stateless(out);
    Some(Tensor::from_primitive::<Tracked>(out))
}

#[derive(Debug)]
struct Sum;

impl Backward<Flex, 3> for Sum {
    type State = ();

    fn backward(self, ops: Ops<(), 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_out = grads.consume::<Flex>(&ops.node);
        for node in ops.parents.into_iter().flatten() {
            grads.register::<Flex>(node.id, d_out.clone());
        }
    }
}

vectorized! {
    fn add(out: &mut [f32], x: &[f32], y: &[f32], z: &[f32]) {
        for (out, ((x, y), z)) in out.iter_mut().zip(x.iter().zip(y).zip(z)) {
            *out = x + y + z;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::gradient_tests::{check, random};

    #[test]
    fn values_and_gradients_are_those_of_burn_with_any_number_of_threads() {
        for shape in [[1, 1], [3, 7], [300, 70]] {
            check(
                &random(&[shape; 3]),
                &|x| tracked_sum([&x[0], &x[1], &x[2]]).unwrap(),
                &|x| x[0].clone() + x[1].clone() + x[2].clone(),
                0.0,
            );
        }
        // terms that are the same tensor, and a term in another order
        check(
            &random(&[[40, 40]]),
            &|x| tracked_sum([&x[0], &x[0].clone().transpose(), &x[0]]).unwrap(),
            &|x| x[0].clone() + x[0].clone().transpose() + x[0].clone(),
            0.0,
        );
    }
}
