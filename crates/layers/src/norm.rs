//! Layer norm, with a kernel where there is one.

use burn::nn::LayerNorm;
use burn::tensor::Tensor;

/// `layer` over the last dimension of `x`; `epsilon` is that of the layer.
///
/// # Shapes
/// `[rows, time, width]` -> `[rows, time, width]`
pub(crate) fn layer_norm(layer: &LayerNorm, epsilon: f64, x: Tensor<3>) -> Tensor<3> {
    let [rows, time, width] = x.dims();
    if let Some(beta) = &layer.beta
        && let Some(out) = block_transformer_kernels::layer_norm(
            &x.clone().reshape([rows * time, width]),
            &layer.gamma.val(),
            &beta.val(),
            epsilon,
        )
    {
        return out.reshape([rows, time, width]);
    }
    layer.forward(x)
}
