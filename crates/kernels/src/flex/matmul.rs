//! Products of large matrices by the crate `gemm`, in parts for the threads.
//!
//! A thread packs and multiplies its own part. `gemm` itself packs one operand on one thread only.

use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;

use super::parts::DisjointSlices;

/// The least number of rows and of columns of a part.
const LEAST: usize = 128;
/// Columns of parts are multiples of this, the columns of a tile of `gemm`.
const TILE: usize = 64;
/// Multiplications below which one thread computes the product.
const SERIAL: usize = 192 * 192 * 192;

/// A matrix of f32 with any distances between its rows and between its columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Elements from a row to the next, and from a column to the next.
    strides: (usize, usize),
}

impl<'a> Matrix<'a> {
    /// A matrix in row-major order.
    pub(crate) fn new(values: &'a [f32], columns: usize) -> Self {
        Self { values, rows: values.len() / columns.max(1), columns, strides: (columns, 1) }
    }

    /// The matrix of a tensor of two dimensions, which need not be contiguous. `None` unless its elements are f32
    /// in ascending places.
    pub(crate) fn of(tensor: &'a FlexTensor) -> Option<Self> {
        let layout = tensor.layout();
        let [rows, columns] = layout.shape().dims();
        let [row, column] = layout.strides() else { return None };
        let strides = (usize::try_from(*row).ok()?, usize::try_from(*column).ok()?);
        if tensor.dtype() != DType::F32 || rows * columns == 0 {
            return None;
        }
        let values = &tensor.storage::<f32>()[layout.start_offset()..];
        assert!((rows - 1) * strides.0 + (columns - 1) * strides.1 < values.len());
        Some(Self { values, rows, columns, strides })
    }

    /// The transposed matrix, without a copy.
    pub(crate) fn transposed(self) -> Self {
        let strides = (self.strides.1, self.strides.0);
        Self { rows: self.columns, columns: self.rows, strides, ..self }
    }

    /// The number of columns.
    pub(crate) fn columns(self) -> usize {
        self.columns
    }

    /// The rows from `first` on.
    fn rows_from(self, first: usize) -> *const f32 {
        self.values[first * self.strides.0..].as_ptr()
    }

    fn columns_from(self, first: usize) -> *const f32 {
        self.values[first * self.strides.1..].as_ptr()
    }
}

/// `a b + bias`, row-major. The bits are those of burn's product, whose result the bias is added to; they do not
/// depend on the number of threads.
pub(crate) fn product(a: Matrix, b: Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let (m, n) = (a.rows, b.columns);
    let mut out = Vec::with_capacity(m * n);
    multiply(DisjointSlices::spare(&mut out), a, b, bias, false);
    // SAFETY: the product has written all elements
    unsafe { out.set_len(m * n) };
    out
}

/// Adds `a b` to `sum`, row-major.
pub(crate) fn add_product(sum: &mut [f32], a: Matrix, b: Matrix) {
    multiply(DisjointSlices::new(sum), a, b, None, true);
}

/// Writes `a b + bias` to `out`, or adds it if `add` is true.
fn multiply(out: DisjointSlices<'_>, a: Matrix, b: Matrix, bias: Option<&[f32]>, add: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert!(k == b.rows && bias.is_none_or(|bias| bias.len() == n), "sizes of a product");
    assert!(m > 0 && n > 0 && k > 0, "a matrix without elements");
    assert!(out.len() >= m * n);
    let threads = if m * n * k < SERIAL { 1 } else { rayon::current_num_threads() };
    // `gemm` divides the sum over `k` in the same way for all sizes of parts, so that the bits are the same
    let width = part(n, threads, TILE);
    let height = part(m, threads / (n / width).max(1), 1);
    // the last part also takes what is left: `gemm` sums thin parts in another order
    let (columns, lines) = ((n / width).max(1), (m / height).max(1));
    (0..lines * columns).into_par_iter().with_max_len(1).for_each(|i| {
        let (row, column) = (i / columns * height, i % columns * width);
        let rows = if i / columns + 1 == lines { m - row } else { height };
        let width = if i % columns + 1 == columns { n - column } else { width };
        // SAFETY: no other task uses this part of the output, which is inside it; the operands are inside
        // theirs by construction
        unsafe {
            let to = out.start().add(row * n + column);
            gemm(
                rows,
                width,
                k,
                to,
                1,
                n as isize,
                add,
                a.rows_from(row),
                a.strides.1 as isize,
                a.strides.0 as isize,
                b.columns_from(column),
                b.strides.1 as isize,
                b.strides.0 as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
            if let Some(bias) = bias {
                for row in 0..rows {
                    let to = std::slice::from_raw_parts_mut(to.add(row * n), width);
                    add_values(to, &bias[column..column + width]);
                }
            }
        }
    });
}

/// The size of each part of `count` rows or columns for `threads` threads, a multiple of `unit`.
fn part(count: usize, threads: usize, unit: usize) -> usize {
    let parts = (count / LEAST).clamp(1, threads.max(1));
    count.div_ceil(parts).next_multiple_of(unit)
}

vectorized! {
    /// Adds `x` to `y`.
    pub(crate) fn add_values(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}
