//! GELU with its exact derivative on every backend.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, activation};

/// `x * Phi(x)` with the error function.
///
/// burn differentiates its GELU by a tanh approximation on backends that bring no derivative of
/// their own (about 3e-4 off); there the function is composed of operations whose derivatives are
/// exact.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if let Some(out) = block_transformer_kernels::gelu(&x) {
        return out;
    }
    if !x.is_autodiff() || is_exact(&x.device()) {
        return activation::gelu(x);
    }
    let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * phi
}

/// Whether the backend's own derivative is the exact one: tried once a device, at 1, where the two
/// differ most visibly.
fn is_exact(device: &Device) -> bool {
    /// Phi(1) + phi(1)
    const DERIVATIVE: f32 = 1.083_315_5;
    static KNOWN: LazyLock<Mutex<HashMap<String, bool>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known.entry(format!("{device:?}")).or_insert_with(|| {
        let x = Tensor::<1>::from_floats([1.0], device).require_grad();
        let gradients = activation::gelu(x.clone()).backward();
        let gradient = x.grad(&gradients).map(|gradient| gradient.into_scalar::<f32>());
        gradient.is_some_and(|gradient| (gradient - DERIVATIVE).abs() < 1e-5)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_the_exact_derivative() {
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
