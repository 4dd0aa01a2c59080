//! The Gaussian error linear unit.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::parts::{contiguous, tensor, values};
use super::simd::math::{erf, exp};

/// Elements per task.
const TASK: usize = 1 << 14;

/// See [`crate::gelu`].
pub(crate) fn gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    if x.is_autodiff() {
        let x = x.clone().try_into_primitive::<Autodiff<Flex, NoCheckpointing>>().ok()?;
        let input = contiguous(x.primitive())?;
        let out = forward(&input);
        let out = match Gelu.prepare::<NoCheckpointing>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(input, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        return Some(Tensor::from_primitive::<Autodiff<Flex, NoCheckpointing>>(out));
    }
    let x = contiguous(&x.clone().try_into_primitive::<Flex>().ok()?)?;
    Some(Tensor::from_primitive::<Flex>(forward(&x)))
}

#[derive(Debug)]
struct Gelu;

impl Backward<Flex, 1> for Gelu {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let x = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |d_out| backward(&x, &d_out));
    }
}

fn forward(x: &FlexTensor) -> FlexTensor {
    let x_values = values(x);
    let mut out = vec![0.0; x_values.len()];
    out.par_chunks_mut(TASK)
        .zip(x_values.par_chunks(TASK))
        .for_each(|(out, x)| gelu_values(out, x));
    tensor(out, x.layout().shape().clone())
}

fn backward(x: &FlexTensor, d_out: &FlexTensor) -> FlexTensor {
    let d_out = d_out.to_contiguous();
    let (x_values, d_out) = (values(x), values(&d_out));
    let mut d_x = vec![0.0; x_values.len()];
    d_x.par_chunks_mut(TASK)
        .zip(x_values.par_chunks(TASK))
        .zip(d_out.par_chunks(TASK))
        .for_each(|((d_x, x), d_out)| gelu_gradient(d_x, x, d_out));
    tensor(d_x, x.layout().shape().clone())
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
fn gelu_values(out: &mut [f32], x: &[f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x * (0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// `d_x = d_out * (Phi(x) + x * phi(x))`
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
fn gelu_gradient(d_x: &mut [f32], x: &[f32], d_out: &[f32]) {
    /// `(2 pi)^-0.5`, the density `phi` at 0.
    const DENSITY: f32 = 0.398_942_3;
    for ((d_x, &x), d_out) in d_x.iter_mut().zip(x).zip(d_out) {
        let phi = 0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2);
        *d_x = d_out * (phi + x * DENSITY * exp(-0.5 * x * x));
    }
}
