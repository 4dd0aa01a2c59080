//! The Gaussian error linear unit.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::parts::{contiguous, in_parts, tensor, values};
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
    let out = in_parts(x_values.len(), TASK, |i, out| {
        gelu_values(out, &x_values[i * TASK..]);
    });
    tensor(out, x.layout().shape().clone())
}

fn backward(x: &FlexTensor, d_out: &FlexTensor) -> FlexTensor {
    let d_out = d_out.to_contiguous();
    let (x_values, d_out) = (values(x), values(&d_out));
    let d_x = in_parts(x_values.len(), TASK, |i, d_x| {
        gelu_gradient(d_x, &x_values[i * TASK..], &d_out[i * TASK..]);
    });
    tensor(d_x, x.layout().shape().clone())
}

vectorized! {
    fn gelu_values(out: &mut [f32], x: &[f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * (0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

vectorized! {
    /// `d_x = d_out * (Phi(x) + x * phi(x))`
    fn gelu_gradient(d_x: &mut [f32], x: &[f32], d_out: &[f32]) {
        /// `(2 pi)^-0.5`, the density `phi` at 0.
        const DENSITY: f32 = 0.398_942_3;
        for ((d_x, &x), d_out) in d_x.iter_mut().zip(x).zip(d_out) {
            let phi = 0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2);
            *d_x = d_out * (phi + x * DENSITY * exp(-0.5 * x * x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_set::forced::for_each_set;

    /// `Phi(x)` by the power series of the error function. In f64 its terms cancel to 1e-9 at 6.
    fn phi(x: f64) -> f64 {
        let x = x / std::f64::consts::SQRT_2;
        let mut power = x;
        let mut sum = x;
        for n in 1..120 {
            power *= -x * x / f64::from(n);
            sum += power / f64::from(2 * n + 1);
        }
        0.5 + sum / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn values_and_gradients_are_those_of_the_formula() {
        // not a multiple of any vector
        let x: Vec<f32> = (0..1203).map(|i| (i as f32 - 601.0) * 9e-3).collect();
        let d_out: Vec<f32> = x.iter().map(|x| 1.0 - 0.2 * x).collect();
        for_each_set(|set| {
            let (mut out, mut d_x) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            gelu_values(&mut out, &x);
            gelu_gradient(&mut d_x, &x, &d_out);
            for i in 0..x.len() {
                let at = f64::from(x[i]);
                let density = (-0.5 * at * at).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let slope = f64::from(d_out[i]) * (phi(at) + at * density);
                // half the 1e-6 of the error function, times a factor of at most 6; rounding adds less
                let tolerance = 4e-6;
                assert!((f64::from(out[i]) - at * phi(at)).abs() < tolerance, "{set}: {at}");
                assert!((f64::from(d_x[i]) - slope).abs() < tolerance, "{set}: {at}");
            }
        });
    }
}
