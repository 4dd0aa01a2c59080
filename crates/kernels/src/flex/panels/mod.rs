//! Products with a matrix in panels, for inference.
//!
//! A panel has 16 columns of the matrix, row after row: `[n / 16][k][16]`. One thread reads its panels
//! from start to end, so that a few rows are multiplied as fast as memory delivers the matrix, and
//! many rows find blocks of panels in the cache.
//!
//! Each output is one chain of multiply-adds over `k` that starts from the bias. Its bits depend
//! neither on the number of rows nor on the number of threads. A chain over integers starts from 0; its
//! end is multiplied by the scale of the column and added to the bias.

use rayon::prelude::*;

use crate::flex::parts::DisjointSlices;
use crate::flex::simd::vector::{Stored, Vector, Vectorized, dispatch};
use crate::packed::PANEL;

/// Rows of the matrix in a block, when several tiles of rows read it: with three panels, 24 KiB of the
/// first-level cache.
const DEPTH: usize = 128;
/// Bytes of the matrix that a task reads at least.
const TASK_BYTES: usize = 1 << 18;
/// Distance in rows of a panel from the loads of a tile to the lines that it prefetches.
const AHEAD: usize = 32;
/// The largest number of vectors of columns in a tile of several rows.
const VECTORS: usize = 4;

/// The size of a product `[m, k] x [k, n]`.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// `x[m, k] weight + bias[n]`, `[m, n]`, with `weight` in panels.
pub(crate) fn product<T: Stored>(
    x: &[f32],
    weight: &[T],
    bias: Option<&[f32]>,
    size: Size,
) -> Vec<f32> {
    let Size { m, n, k } = size;
    assert!(x.len() == m * k && bias.is_none_or(|bias| bias.len() == n));
    assert_eq!(weight.len(), (k + T::SCALE_ROWS) * n);
    let panels = n / PANEL;
    let threads = rayon::current_num_threads();
    let most = size_of_val(weight).div_ceil(TASK_BYTES).clamp(1, 4 * threads);
    let tasks = if most < threads { most } else { most.next_multiple_of(threads) };
    // whole tiles of one row, which have at most eight panels
    let per_task = panels.div_ceil(tasks).next_multiple_of(8);
    let mut out = Vec::with_capacity(m * n);
    let to = DisjointSlices::spare(&mut out);
    (0..panels.div_ceil(per_task)).into_par_iter().with_max_len(1).for_each(|task| {
        let first = task * per_task;
        let count = per_task.min(panels - first);
        let scratch = Vec::new();
        dispatch(Panels { x, weight, bias, out: to, size, first, count, scratch });
    });
    // SAFETY: the tasks have written all columns of all rows
    unsafe { out.set_len(m * n) };
    out
}

/// Consecutive panels of a product, which one task computes.
struct Panels<'a, T> {
    x: &'a [f32],
    weight: &'a [T],
    bias: Option<&'a [f32]>,
    /// `[m, n]`; the task writes the columns of its panels before it reads them
    out: DisjointSlices<'a>,
    size: Size,
    first: usize,
    count: usize,
    /// A block of the matrix as f32.
    scratch: Vec<f32>,
}

/// A block of the rows of a group of panels.
#[derive(Clone, Copy)]
struct Block {
    /// First column of the output.
    column: usize,
    /// First row of the matrix.
    start: usize,
    /// Rows of the matrix.
    depth: usize,
}

impl<T: Stored> Vectorized for Panels<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        let m = self.size.m;
        let per_panel = PANEL / V::LANES;
        // sums of a tile, which must fit into the registers: 32 of the widest vectors, 16 of the others
        let (most_rows, vectors) = match (V::LANES, m) {
            (_, 1) => (1, 8),
            (16, ..=6) => (6, 4),
            (16, _) => (8, 3),
            (8, ..=3) => (2, 4),
            (8, _) => (6, 2),
            _ => (4, 4),
        };
        let (mut panel, end) = (self.first, self.first + self.count);
        while panel < end {
            let width = (vectors / per_panel).max(1);
            // SAFETY: the panels are those of the task
            panel += unsafe {
                if panel + width > end {
                    match per_panel {
                        1 => self.group::<V, 1>(panel, most_rows),
                        2 => self.group::<V, 2>(panel, most_rows),
                        _ => self.group::<V, 4>(panel, most_rows),
                    }
                } else {
                    match vectors {
                        8 => self.one_row::<V, 8>(panel),
                        3 => self.group::<V, 3>(panel, most_rows),
                        2 => self.group::<V, 2>(panel, most_rows),
                        _ => self.group::<V, 4>(panel, most_rows),
                    }
                }
            };
        }
    }
}

impl<T: Stored> Panels<'_, T> {
    /// Computes the only row of `N` vectors of columns. Returns the number of panels.
    ///
    /// # Safety
    /// The panels must be those of the task; also below.
    #[inline(always)]
    unsafe fn one_row<V: Vector, const N: usize>(&mut self, panel: usize) -> usize {
        let height = self.size.k + T::SCALE_ROWS;
        let block = Block { column: panel * PANEL, start: 0, depth: self.size.k };
        let weight = self.weight[panel * height * PANEL..].as_ptr();
        // SAFETY: by the caller's promise
        unsafe { self.tile::<V, T, 1, N, true>(weight, height, 0, block) };
        N * V::LANES / PANEL
    }

    /// Computes `N` vectors of columns for all rows. Returns the number of panels.
    #[inline(always)]
    unsafe fn group<V: Vector, const N: usize>(&mut self, panel: usize, most_rows: usize) -> usize {
        let Size { m, k, .. } = self.size;
        let panels = N * V::LANES / PANEL;
        let (column, height) = (panel * PANEL, k + T::SCALE_ROWS);
        let weight = self.weight[panel * height * PANEL..].as_ptr();
        // SAFETY: by the caller's promise
        unsafe {
            if m <= most_rows {
                self.rows::<V, T, N, true>(
                    weight,
                    height,
                    most_rows,
                    Block { column, start: 0, depth: k },
                );
                return panels;
            }
            for start in (0..k).step_by(DEPTH) {
                let block = Block { column, start, depth: DEPTH.min(k - start) };
                let weight = weight.add(start * PANEL);
                if T::IS_F32 {
                    self.rows::<V, T, N, false>(weight, height, most_rows, block);
                } else {
                    let mut scratch = std::mem::take(&mut self.scratch);
                    scratch.resize(VECTORS * PANEL * DEPTH, 0.0);
                    let wide = scratch.as_mut_ptr();
                    for p in 0..panels {
                        let (from, to) = (p * height * PANEL, p * DEPTH * PANEL);
                        for i in (0..block.depth * PANEL).step_by(V::LANES) {
                            T::load::<V>(weight.add(from + i)).store(wide.add(to + i));
                        }
                    }
                    self.rows::<V, f32, N, false>(wide, DEPTH, most_rows, block);
                    self.scratch = scratch;
                }
            }
        }
        panels
    }

    /// Adds the products of a block for all rows. `height` is the number of rows of a panel at
    /// `weight`.
    #[inline(always)]
    unsafe fn rows<V: Vector, W: Stored, const N: usize, const FROM_MEMORY: bool>(
        &mut self,
        weight: *const W,
        height: usize,
        most_rows: usize,
        block: Block,
    ) {
        let mut row = 0;
        while row < self.size.m {
            // SAFETY: by the caller's promise
            row += unsafe {
                match (self.size.m - row).min(most_rows) {
                    8.. => self.tile::<V, W, 8, N, FROM_MEMORY>(weight, height, row, block),
                    6.. => self.tile::<V, W, 6, N, FROM_MEMORY>(weight, height, row, block),
                    4.. => self.tile::<V, W, 4, N, FROM_MEMORY>(weight, height, row, block),
                    2.. => self.tile::<V, W, 2, N, FROM_MEMORY>(weight, height, row, block),
                    _ => self.tile::<V, W, 1, N, FROM_MEMORY>(weight, height, row, block),
                }
            };
        }
    }

    /// Adds the products of a block to `R` rows of `N` vectors. Returns `R`.
    #[inline(always)]
    unsafe fn tile<
        V: Vector,
        W: Stored,
        const R: usize,
        const N: usize,
        const FROM_MEMORY: bool,
    >(
        &mut self,
        weight: *const W,
        height: usize,
        row: usize,
        block: Block,
    ) -> usize {
        let Size { n, k, .. } = self.size;
        let Block { column, start, depth } = block;
        let per_panel = PANEL / V::LANES;
        // SAFETY: by the caller's promise; a prefetch is valid for any address
        unsafe {
            let x = self.x.as_ptr().add(row * k + start);
            let out = self.out.start().add(row * n + column);
            let mut sums = [[V::splat(0.0); N]; R];
            for (v, first) in (0..N).map(|v| (v, v * V::LANES)) {
                for (r, sums) in sums.iter_mut().enumerate() {
                    sums[v] = match self.bias {
                        _ if start > 0 => V::load(out.add(r * n + first)),
                        // the bias follows the scale
                        _ if T::SCALE_ROWS > 0 => V::splat(0.0),
                        Some(bias) => V::load(bias.as_ptr().add(column + first)),
                        None => V::splat(0.0),
                    };
                }
            }
            let mut at = [weight; N];
            for (v, at) in at.iter_mut().enumerate() {
                *at = weight.add(v / per_panel * height * PANEL + v % per_panel * V::LANES);
            }
            for d in 0..depth {
                let mut weights = [V::splat(0.0); N];
                for (v, to) in weights.iter_mut().enumerate() {
                    *to = W::load(at[v].add(d * PANEL));
                    if FROM_MEMORY && v % per_panel == 0 {
                        V::prefetch(at[v].wrapping_add((d + AHEAD) * PANEL));
                    }
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = V::splat(*x.add(r * k + d));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = x.multiply_add(weight, *sum);
                    }
                }
            }
            if T::SCALE_ROWS > 0 && start + depth == k {
                for first in (0..N).map(|v| v * V::LANES) {
                    let scale = V::load(self.scale(column + first));
                    let bias = match self.bias {
                        Some(bias) => V::load(bias.as_ptr().add(column + first)),
                        None => V::splat(0.0),
                    };
                    for sums in &mut sums {
                        let sum = &mut sums[first / V::LANES];
                        *sum = sum.multiply_add(scale, bias);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    sum.store(out.add(r * n + v * V::LANES));
                }
            }
        }
        R
    }

    /// The address of the scale of `column`.
    #[inline(always)]
    fn scale(&self, column: usize) -> *const f32 {
        let (panel, k) = (column / PANEL, self.size.k);
        let end = (panel * (k + T::SCALE_ROWS) + k) * PANEL;
        self.weight[end..].as_ptr().cast::<f32>().wrapping_add(column % PANEL)
    }
}

#[cfg(test)]
mod tests;
