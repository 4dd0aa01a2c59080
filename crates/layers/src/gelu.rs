//! GELU with its exact derivative on every backend.

use burn::tensor::{DType, Tensor, activation};

/// `x * Phi(x)` with the error function.
///
/// On backends without their own derivative of GELU, burn uses the derivative of the tanh
/// approximation, which has an error of about 3e-4. If gradients are needed and no kernel applies,
/// the function is therefore composed of operations with exact derivatives.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let format = x.dtype();
    gelu_between(x, format)
}

/// [`gelu`] between two products with weights in `format`. A device whose products have operands in this
/// format keeps `x` in it for the backward pass.
pub(crate) fn gelu_between<const D: usize>(x: Tensor<D>, format: DType) -> Tensor<D> {
    if let Some(out) = block_transformer_kernels::gelu(&x, format) {
        return out;
    }
    if !x.is_autodiff() {
        return activation::gelu(x);
    }
    let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * phi
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_derivative_is_exact_on_every_backend() {
        let points = [-3.0_f32, -1.0, -0.3, 0.0, 0.5, 1.0, 2.0];
        // Phi(x) + x phi(x), by Python's math.erf
        let expected = [-0.0119456, -0.0833155, 0.2676722, 0.5, 0.8674951, 1.0833155, 1.0852318];
        #[expect(deprecated, reason = "supported for as long as burn has it")]
        for device in [Device::flex(), Device::ndarray()] {
            let x = Tensor::<1>::from_floats(points, &device.autodiff()).require_grad();
            let gradients = gelu(x.clone()).backward();
            let found = x.grad(&gradients).unwrap().into_data();
            for (found, expected) in found.iter::<f32>().zip(expected) {
                assert!((found - expected).abs() < 2e-6, "{found} {expected}");
            }
        }
    }
}
