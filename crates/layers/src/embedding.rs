//! Embedding tables.

use burn::nn::Embedding;
use burn::tensor::{Int, Tensor};

/// The rows of `table` for each id.
///
/// # Shapes
/// - `ids`: `[rows, time]`
/// - output: `[rows, time, width]`
pub fn embed(table: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
    let weight = table.weight.val();
    let ([rows, time], [_, width]) = (ids.dims(), weight.dims());
    // only the derivative needs a kernel
    if weight.is_autodiff()
        && let Some(out) =
            block_transformer_kernels::embed(&weight, &ids.clone().reshape([rows * time]))
    {
        return out.reshape([rows, time, width]);
    }
    table.forward(ids)
}
