//! The product of a few rows and a large matrix, as in decoding. Reading the matrix takes most of
//! the time.

use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::tensor::{DType, Device, Shape, Tensor, bf16};
use rayon::prelude::*;

use super::integers::unwrapped;
use super::panels::{self, Size};
use super::parts::{DisjointSlices, contiguous, tensor, values};
use super::simd::vector::{Stored, Vector, Vectorized, dispatch};
use crate::packed::{columns, is_packed};

/// The largest number of rows of `x` for a matrix of f32. With more rows, burn's packed product is
/// faster; it rounds differently.
const MAX_ROWS: usize = 191;
/// Rows of the matrix in a tile: the number of streams that the hardware prefetches well.
const DEPTH: usize = 32;
/// The largest number of columns per task: 4 KiB of each row of the matrix.
const TASK_COLUMNS: usize = 1024;
/// Distance in columns from a tile to the columns that it prefetches. The work in between hides
/// the memory latency.
const AHEAD: usize = 256;
/// Vectors of columns in a tile. The sums of up to [`Vector::ROWS`] rows stay in registers.
const VECTORS: usize = 3;
/// Columns of the widest tile: [`VECTORS`] vectors of AVX-512.
const TILE_COLUMNS: usize = 16 * VECTORS;
/// Unused columns after each row of a task's sums. Without them, the distance of rows could be a
/// power of two, and rows would compete for the same sets of the cache.
const PADDING: usize = 16;

/// See [`crate::batch_invariant_rows`].
pub(crate) fn batch_invariant_rows(device: &Device) -> Option<usize> {
    super::serves(device).then_some(MAX_ROWS)
}

/// See [`crate::linear`].
pub(crate) fn linear(
    x: &Tensor<2>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<2>> {
    let ([m, k], n) = (x.dims(), columns(weight, x.dims()[1]));
    let (stored, in_panels) = (weight.dtype(), is_packed(weight));
    let too_many = m > MAX_ROWS && stored == DType::F32 && !in_panels;
    if too_many || x.is_autodiff() || weight.is_autodiff() {
        return None;
    }
    let weight = match stored {
        DType::QFloat(_) => unwrapped(weight.clone())?,
        _ => weight.clone().try_into_primitive::<Flex>().ok()?,
    };
    // making the matrix contiguous would cost more than the product
    let at = weight.layout().contiguous_offsets()?;
    let x = contiguous(&x.clone().try_into_primitive::<Flex>().ok()?)?;
    let bias = match bias {
        Some(bias) => Some(contiguous(&bias.clone().try_into_primitive::<Flex>().ok()?)?),
        None => None,
    };
    let (x, bias, size) = (values(&x), bias.as_ref().map(values), Size { m, n, k });
    let out = match weight.dtype() {
        DType::F32 if in_panels => {
            panels::product(x, &weight.storage::<f32>()[at.0..at.1], bias, size)
        }
        DType::BF16 if in_panels => {
            panels::product(x, &weight.storage::<bf16>()[at.0..at.1], bias, size)
        }
        DType::I8 => panels::product(x, &weight.storage::<i8>()[at.0..at.1], bias, size),
        DType::F32 => product(x, &weight.storage::<f32>()[at.0..at.1], bias, size),
        DType::BF16 => product(x, &weight.storage::<bf16>()[at.0..at.1], bias, size),
        _ => return None,
    };
    Some(Tensor::from_primitive::<Flex>(tensor(out, Shape::new([m, n]))))
}

/// `x[m, k] weight[k, n] + bias[n]`, all row-major.
fn product<T: Stored>(x: &[f32], weight: &[T], bias: Option<&[f32]>, size: Size) -> Vec<f32> {
    let Size { m, n, k } = size;
    assert!(x.len() == m * k && weight.len() == k * n && bias.is_none_or(|bias| bias.len() == n));
    // every thread gets the same number of tasks, and a task has whole vectors of columns
    let tasks = n.div_ceil(TASK_COLUMNS).next_multiple_of(rayon::current_num_threads());
    let task_columns = n.div_ceil(tasks).next_multiple_of(TILE_COLUMNS);
    let mut out = Vec::with_capacity(m * n);
    let all = DisjointSlices::spare(&mut out);
    (0..n.div_ceil(task_columns)).into_par_iter().for_each_init(Vec::new, |sums, i| {
        let start = i * task_columns;
        let width = task_columns.min(n - start);
        let stride = width + PADDING;
        sums.resize(m * stride, 0.0);
        for row in sums.chunks_exact_mut(stride) {
            match bias {
                Some(bias) => row[..width].copy_from_slice(&bias[start..start + width]),
                None => row.fill(0.0),
            }
        }
        dispatch(Columns { x, weight, sums: &mut *sums, size, start, width });
        for (row, sums) in sums.chunks_exact(stride).enumerate() {
            // SAFETY: only this task writes these columns
            unsafe { all.write(row * n + start, &sums[..width]) };
        }
    });
    // SAFETY: the tasks have written all columns of all rows
    unsafe { out.set_len(m * n) };
    out
}

/// The columns `start..start + width` of a product, which one task computes.
struct Columns<'a, T> {
    x: &'a [f32],
    weight: &'a [T],
    /// `[m, width + PADDING]`; initially the bias
    sums: &'a mut [f32],
    size: Size,
    start: usize,
    width: usize,
}

/// The place of a tile in a product. Columns count from the start of the task.
#[derive(Clone, Copy)]
struct Tile {
    /// First row of `x` and of the output.
    row: usize,
    /// First column of the output.
    column: usize,
    /// First row of the matrix.
    first: usize,
    /// Rows of the matrix.
    depth: usize,
}

impl<T: Stored> Vectorized for Columns<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        let Size { m, n, k } = self.size;
        for first in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - first);
            let mut column = 0;
            while column + V::LANES <= self.width {
                let tile = Tile { row: 0, column, first, depth };
                // SAFETY: the tile's columns and depth are inside the matrices
                column += unsafe {
                    if column + VECTORS * V::LANES <= self.width {
                        self.all_rows::<V, VECTORS>(tile)
                    } else {
                        self.all_rows::<V, 1>(tile)
                    }
                };
            }
            for column in column..self.width {
                for row in 0..m {
                    let sum = &mut self.sums[row * (self.width + PADDING) + column];
                    for d in 0..depth {
                        let weight = self.weight[(first + d) * n + self.start + column];
                        *sum += self.x[row * k + first + d] * weight.to_f32();
                    }
                }
            }
        }
    }
}

impl<T: Stored> Columns<'_, T> {
    /// Computes `N` vectors of columns for all rows, from the tile of row 0 on. Returns the number
    /// of columns.
    ///
    /// # Safety
    /// The columns and the depth of the tile must be inside the matrices. For the methods below,
    /// the rows of the tile must be inside them too.
    #[inline(always)]
    unsafe fn all_rows<V: Vector, const N: usize>(&mut self, mut tile: Tile) -> usize {
        let Size { m, n, .. } = self.size;
        let mut copy = [MaybeUninit::<f32>::uninit(); DEPTH * TILE_COLUMNS];
        let copy = copy.as_mut_ptr().cast::<f32>();
        let weight = self.weight.as_ptr().wrapping_add(tile.first * n + self.start + tile.column);
        let ahead = self.ahead(tile);
        while tile.row < m {
            // SAFETY: by the caller's promise; the first rows have filled the copy that the others
            // read
            tile.row += unsafe {
                match m - tile.row {
                    8.. if V::ROWS >= 8 => self.some_rows::<V, 8, N>(weight, ahead, copy, tile),
                    4.. => self.some_rows::<V, 4, N>(weight, ahead, copy, tile),
                    2.. => self.some_rows::<V, 2, N>(weight, ahead, copy, tile),
                    _ => self.some_rows::<V, 1, N>(weight, ahead, copy, tile),
                }
            };
        }
        N * V::LANES
    }

    /// Returns the address of the part of the matrix [`AHEAD`] columns after the tile: in the same
    /// rows, or at the start of the next rows. It may lie outside the matrix.
    #[inline(always)]
    fn ahead(&self, tile: Tile) -> *const T {
        let (mut first, mut column) = (tile.first, tile.column + AHEAD.min(self.width));
        if column >= self.width {
            (first, column) = (first + DEPTH, column - self.width);
        }
        self.weight.as_ptr().wrapping_add(first * self.size.n + self.start + column)
    }

    /// Runs [`rows`](Self::rows) for the `R` rows from `tile.row` on. The first rows read the
    /// matrix itself. At the same time they prefetch the part at `ahead` in small portions. If
    /// further rows follow, they also copy the tile to contiguous memory, which the further rows
    /// read.
    #[inline(always)]
    unsafe fn some_rows<V: Vector, const R: usize, const N: usize>(
        &mut self,
        weight: *const T,
        ahead: *const T,
        copy: *mut f32,
        tile: Tile,
    ) -> usize {
        let Size { m, n, .. } = self.size;
        let further = m > R;
        // SAFETY: by the caller's promise; a prefetch is valid for any address
        unsafe {
            if tile.row > 0 {
                return self.rows::<V, f32, R, N>(copy, TILE_COLUMNS, tile, |_, _| {});
            }
            self.rows::<V, T, R, N>(weight, n, tile, |d, weights: [V; N]| {
                for (v, weight) in weights.into_iter().enumerate() {
                    V::prefetch(ahead.wrapping_add(d * n + v * V::LANES));
                    if further {
                        weight.store(copy.add(d * TILE_COLUMNS + v * V::LANES));
                    }
                }
            })
        }
    }

    /// Adds the products of the tile to the sums of `R` rows by `N` vectors. `with` is called with
    /// each row of the tile's weights. Returns `R`.
    #[inline(always)]
    unsafe fn rows<V: Vector, W: Stored, const R: usize, const N: usize>(
        &mut self,
        weight: *const W,
        stride: usize,
        tile: Tile,
        with: impl Fn(usize, [V; N]),
    ) -> usize {
        let k = self.size.k;
        let sum_stride = self.width + PADDING;
        // SAFETY: by the caller's promise
        unsafe {
            let x = self.x.as_ptr().add(tile.row * k + tile.first);
            let out = self.sums.as_mut_ptr().add(tile.row * sum_stride + tile.column);
            let mut sums = [[V::splat(0.0); N]; R];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(out.add(r * sum_stride + v * V::LANES));
                }
            }
            for d in 0..tile.depth {
                let mut weights = [V::splat(0.0); N];
                for (v, to) in weights.iter_mut().enumerate() {
                    *to = W::load(weight.add(d * stride + v * V::LANES));
                }
                with(d, weights);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = V::splat(*x.add(r * k + d));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = x.multiply_add(weight, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    sum.store(out.add(r * sum_stride + v * V::LANES));
                }
            }
        }
        R
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_set::forced::for_each_set;

    /// Compares products with plain loops, for weights that `stored` converts.
    fn check<T: Stored>(stored: impl Fn(f32) -> T) {
        let values = |count: usize, step: f32| -> Vec<f32> {
            (0..count).map(|i| ((i * 7919) % 1013) as f32 * step - 0.5).collect()
        };
        for m in [1, 2, 3, 5, 8, 9, 17, 47, 100, 191] {
            for (k, n) in [(1, 1), (16, 32), (33, 70), (40, 1030), (65, 2500)] {
                let x = values(m * k, 1e-3);
                let weight: Vec<T> = values(k * n, 7e-4).into_iter().map(&stored).collect();
                let bias = values(n, 1e-2);
                let bias = (k != 33).then_some(&bias[..]);
                let out = product(&x, &weight, bias, Size { m, n, k });
                for (i, out) in out.iter().enumerate() {
                    let terms = (0..k).map(|d| x[i / n * k + d] * weight[d * n + i % n].to_f32());
                    let expected = bias.map_or(0.0, |bias| bias[i % n]) + terms.sum::<f32>();
                    assert!((out - expected).abs() < 1e-4, "{m} {n} {k}: {out} {expected}");
                }
            }
        }
    }

    #[test]
    fn products_of_all_shapes_equal_plain_loops() {
        for_each_set(|_| {
            check(|x| x);
            check(bf16::from_f32);
        });
    }
}
