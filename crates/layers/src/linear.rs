//! Linear layers, with a kernel for a few rows.

use block_transformer_kernels::{columns, unpacked};
use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::products;

/// `x weight + bias`, in the type of `x`. The weight may be stored in a narrower type;
/// the module `products` says how such a product is computed.
///
/// # Shapes
/// - `x`: `[.., d_in]`
/// - `weight`: `[d_in, d_out]`, or in panels (see [`pack`](block_transformer_kernels::pack))
/// - `bias`: `[d_out]`
/// - output: `[.., d_out]`
pub fn project<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    let d_in = shape[D - 1];
    let d_out = columns(&weight, d_in);
    let rows = shape.iter().product::<usize>() / d_in.max(1);
    if !x.is_autodiff()
        && let Some(out) = block_transformer_kernels::linear(
            &x.clone().reshape([rows, d_in]),
            &weight,
            bias.as_ref(),
        )
    {
        shape[D - 1] = d_out;
        return out.reshape(shape);
    }
    products::linear(x, unpacked(weight, d_in), bias)
}

/// [`project`] with the weights of `layer`.
pub(crate) fn apply<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    project(x, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()))
}
