//! Matrices of linear layers in panels of columns.

use burn::tensor::Tensor;

/// Columns of a panel.
#[cfg(feature = "flex")]
pub(crate) const PANEL: usize = 16;

/// Columns of the matrix `weight` with `d_in` rows: `[d_in, d_out]`, or in panels `[d_out / 16 * d_in, 16]`.
pub fn columns(weight: &Tensor<2>, d_in: usize) -> usize {
    let [rows, columns] = weight.dims();
    if rows == d_in { columns } else { rows / d_in * columns }
}

/// The matrix `[d_in, d_out]` of `weight`, which may be in panels.
pub fn unpacked(weight: Tensor<2>, d_in: usize) -> Tensor<2> {
    let [rows, columns] = weight.dims();
    if rows == d_in {
        return weight;
    }
    let panels = rows / d_in;
    weight.reshape([panels, d_in, columns]).swap_dims(0, 1).reshape([d_in, panels * columns])
}
