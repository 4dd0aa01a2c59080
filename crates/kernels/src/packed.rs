//! Matrices of linear layers in panels of columns.

use burn::tensor::{DType, Tensor};

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Rows after the integers of a panel, which hold an f32 per column: what one step of the integers is worth.
pub(crate) const SCALE_ROWS: usize = 4;

/// Columns of the matrix `weight` with `d_in` rows: `[d_in, d_out]`, or in panels (see [`pack`](crate::pack)).
pub fn columns(weight: &Tensor<2>, d_in: usize) -> usize {
    let [rows, columns] = weight.dims();
    if matches!(weight.dtype(), DType::QFloat(_)) {
        return rows / (d_in + SCALE_ROWS) * columns;
    }
    if rows == d_in { columns } else { rows / d_in * columns }
}

/// Whether the matrix `weight` is in panels. A matrix of 16 columns is its own panel.
pub fn is_packed(weight: &Tensor<2>) -> bool {
    weight.dims()[1] == PANEL
}

/// The matrix `[d_in, d_out]` of `weight`, which may be in panels of floats.
pub fn unpacked(weight: Tensor<2>, d_in: usize) -> Tensor<2> {
    let [rows, columns] = weight.dims();
    if rows == d_in {
        return weight;
    }
    let panels = rows / d_in;
    weight.reshape([panels, d_in, columns]).swap_dims(0, 1).reshape([d_in, panels * columns])
}
