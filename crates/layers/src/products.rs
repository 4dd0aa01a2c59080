//! Matrix products whose operands are narrower than their sums.
//!
//! The operands of a product have the format of its weight. A device with products of this format
//! computes with it. On other devices, the operands are widened to the type of the activations. In
//! training they are first rounded to the narrow format, so that a run has the same precision on
//! every device, except that such a product does not round its result.

use burn::tensor::{DType, Tensor, module};

/// Of batches of matrices with fewer rows, burn would multiply each matrix alone if there are many: one
/// small product per block of the token decoder, with a copy of the weight for each.
const LEAST_ROWS: usize = 16;

/// `x weight + bias`, in the type of `x`.
///
/// # Shapes
/// - `x`: `[.., d_in]`
/// - `weight`: `[d_in, d_out]`
/// - `bias`: `[d_out]`
/// - output: `[.., d_out]`
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    if x.is_autodiff()
        && let Some(out) = block_transformer_kernels::tracked_linear(&x, &weight, bias.as_ref())
    {
        return out;
    }
    // only in training: burn's product of several rows does not have the bits of each row alone
    if D > 2 && x.is_autodiff() && shape[D - 2] < LEAST_ROWS {
        let [d_in, d_out] = weight.dims();
        let rows = shape[..D - 1].iter().product();
        shape[D - 1] = d_out;
        return linear(x.reshape([rows, d_in]), weight, bias).reshape(shape);
    }
    let (computed, format) = (x.dtype(), weight.dtype());
    if format == computed {
        return module::linear(x, weight, bias);
    }
    if block_transformer_kernels::multiplies(&x.device(), format) {
        let out = module::linear(x.cast(format), weight, None).cast(computed);
        return match bias {
            Some(bias) => out + bias.unsqueeze(),
            None => out,
        };
    }
    let x = if x.is_autodiff() { rounded(x, format) } else { x };
    module::linear(x, weight.cast(computed), bias)
}

/// `a b` with operands in `format`, in the type of `a`.
pub(crate) fn multiply<const D: usize>(a: Tensor<D>, b: Tensor<D>, format: DType) -> Tensor<D> {
    let computed = a.dtype();
    if format == computed {
        return a.matmul(b.cast(computed));
    }
    if block_transformer_kernels::multiplies(&a.device(), format) {
        return a.cast(format).matmul(b.cast(format)).cast(computed);
    }
    rounded(a, format).matmul(rounded(b, format).cast(computed))
}

/// `x` with the values of `format`.
fn rounded<const D: usize>(x: Tensor<D>, format: DType) -> Tensor<D> {
    let computed = x.dtype();
    if format == computed { x } else { x.cast(format).cast(computed) }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn narrow_operands_give_f32_results_and_f32_gradients() {
        let device = Device::flex().autodiff();
        let random = |shape: [usize; 2]| {
            Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
        };
        let (x, weight) = (random([5, 16]), random([16, 3]));
        let narrow = linear(x.clone(), weight.clone().cast(DType::BF16), None);
        let wide = linear(x.clone(), weight.clone(), None);
        assert_eq!(narrow.dtype(), DType::F32);
        let most = |a: Tensor<2>, b: Tensor<2>| (a - b).abs().max().into_scalar::<f32>();
        let error = most(narrow.clone().inner(), wide.inner());
        // a bf16 value has a relative error of at most 2^-9
        assert!(error > 1e-4 && error < 0.1, "{error}");
        let gradients = narrow.sum().backward();
        let (d_x, d_weight) = (x.grad(&gradients).unwrap(), weight.grad(&gradients).unwrap());
        assert_eq!((d_x.dtype(), d_weight.dtype()), (DType::F32, DType::F32));
        let expected = x.inner().sum_dim(0).transpose().expand([16, 3]);
        let error = most(d_weight, expected);
        assert!(error > 0.0 && error < 0.1, "{error}");
    }

    #[test]
    fn inference_rounds_the_weights_only() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0 + 1.0 / 1024.0]], &device);
        let weight = Tensor::<2>::from_floats([[1.0]], &device);
        let narrow = linear(x.clone(), weight.clone().cast(DType::BF16), None);
        assert_eq!(narrow.into_scalar::<f32>(), 1.0 + 1.0 / 1024.0);
        let both = multiply(x, weight, DType::BF16);
        assert_eq!(both.into_scalar::<f32>(), 1.0);
    }
}
