//! Sums of whole tensors.

use burn::tensor::Tensor;

/// The sum of all elements, `[1]`. The order of the additions is the same in every run.
///
/// On CubeCL devices, `Tensor::sum` adds the sums of its thread groups atomically, in the order in which
/// they finish. A sum along an axis has a fixed order there.
pub fn total<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    if !block_transformer_kernels::chooses(&x.device()) {
        return x.sum();
    }
    let dims = x.dims();
    let x = (0..D).rev().filter(|&axis| dims[axis] > 1).fold(x, |x, axis| x.sum_dim(axis));
    x.reshape([1])
}
