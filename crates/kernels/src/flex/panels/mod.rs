//! Products with a matrix in panels, for inference.
//!
//! A panel has 16 columns of the matrix, row after row: `[n / 16][k][16]`. One thread reads its panels
//! from start to end, so that a few rows are multiplied as fast as memory delivers the matrix, and
//! many rows find blocks of panels in the cache. Elements become f32 in registers each time that they are
//! read; this is faster than reading blocks of f32.
//!
//! Each output is one chain of multiply-adds over `k` that starts from the bias. Its bits depend
//! neither on the number of rows nor on the number of threads. A chain over integers starts from 0; its
//! end is multiplied by the scale of the column and added to the bias.

use rayon::prelude::*;

use crate::flex::parts::DisjointSlices;
use crate::flex::simd::vector::{Stored, Vector, Vectorized, dispatch};
use crate::packed::PANEL;

/// Rows of the matrix in a block that several tiles of rows read: with four panels, 192 KiB of the
/// second-level cache.
const DEPTH: usize = 768;
/// Bytes of the matrix that a task reads at least.
const TASK_BYTES: usize = 1 << 18;
/// Bytes of all panels of a tile between its loads and the lines that it prefetches.
const AHEAD: usize = 8 << 10;
/// The least of that distance, in rows of a panel.
const LEAST_AHEAD: usize = 32;
/// Vectors of columns in a tile of one row.
const VECTORS: usize = 8;

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
    assert!(k > 0 && n >= PANEL, "a matrix without elements");
    assert_eq!(weight.len(), (k + T::SCALE_ROWS) * n);
    let panels = n / PANEL;
    let per_task = panels_per_task(panels, size_of_val(weight), rayon::current_num_threads());
    let mut out = Vec::with_capacity(m * n);
    let to = DisjointSlices::spare(&mut out);
    (0..panels.div_ceil(per_task)).into_par_iter().with_max_len(1).for_each(|task| {
        let first = task * per_task;
        let count = per_task.min(panels - first);
        let panels = Panels { x, weight, bias, out: to, size, first, count };
        if m == 1 { dispatch(OneRow(panels)) } else { dispatch(panels) }
    });
    // SAFETY: the tasks have written all columns of all rows
    unsafe { out.set_len(m * n) };
    out
}

/// The number of panels per task: as many tasks as possible, unless fewer keep the threads busier.
fn panels_per_task(panels: usize, bytes: usize, threads: usize) -> usize {
    // a task has whole tiles of one row, which have at most this many panels
    let tiles = panels.div_ceil(VECTORS);
    let most = bytes.div_ceil(TASK_BYTES).clamp(1, 4 * threads);
    let time = |per_task: usize| tiles.div_ceil(per_task).div_ceil(threads) * per_task;
    let choices = tiles.div_ceil(most)..=tiles.div_ceil(most.min(threads));
    let least = choices.clone().map(time).min().unwrap_or(tiles);
    choices.into_iter().find(|&choice| time(choice) <= least + least / 8).unwrap_or(tiles) * VECTORS
}

/// The largest number of rows of a tile for several rows `m`, and its vectors of columns: the fastest of those
/// whose sums fit into the registers.
const fn tile_size<V: Vector>(m: usize) -> (usize, usize) {
    match (V::REGISTERS, V::LANES, m) {
        // eight rows read the matrix once
        (32, 16, 7 | 8) => (8, 3),
        (32, _, _) => (6, 4),
        (_, 8, 2) => (2, 4),
        (_, 8, _) => (6, 2),
        _ => (4, 4),
    }
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
        let (most_rows, vectors) = tile_size::<V>(m);
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
                        3 => self.group::<V, 3>(panel, most_rows),
                        2 => self.group::<V, 2>(panel, most_rows),
                        _ => self.group::<V, 4>(panel, most_rows),
                    }
                }
            };
        }
    }
}

/// The panels of a product of one row. In a computation with tiles of other sizes, the compiler would spill the
/// addresses of the panels.
struct OneRow<'a, T>(Panels<'a, T>);

impl<T: Stored> Vectorized for OneRow<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(mut panels) = self;
        let per_panel = PANEL / V::LANES;
        let (mut panel, end) = (panels.first, panels.first + panels.count);
        while panel < end {
            // SAFETY: the panels are those of the task
            panel += unsafe {
                match per_panel {
                    _ if panel + VECTORS / per_panel <= end => panels.one_row::<V, VECTORS>(panel),
                    1 => panels.one_row::<V, 1>(panel),
                    2 => panels.one_row::<V, 2>(panel),
                    _ => panels.one_row::<V, 4>(panel),
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
        unsafe { self.tile::<V, 1, N>(weight, height, 0, block) };
        N * V::LANES / PANEL
    }

    /// Computes `N` vectors of columns for all rows. Returns the number of panels.
    #[inline(always)]
    unsafe fn group<V: Vector, const N: usize>(&mut self, panel: usize, most_rows: usize) -> usize {
        let k = self.size.k;
        let panels = N * V::LANES / PANEL;
        let (column, height) = (panel * PANEL, k + T::SCALE_ROWS);
        let weight = self.weight[panel * height * PANEL..].as_ptr();
        for start in (0..k).step_by(DEPTH) {
            let block = Block { column, start, depth: DEPTH.min(k - start) };
            // SAFETY: by the caller's promise
            unsafe { self.rows::<V, N>(weight.add(start * PANEL), height, most_rows, block) };
        }
        panels
    }

    /// Adds the products of a block for all rows. `height` is the number of rows of a panel at
    /// `weight`.
    #[inline(always)]
    unsafe fn rows<V: Vector, const N: usize>(
        &mut self,
        weight: *const T,
        height: usize,
        most_rows: usize,
        block: Block,
    ) {
        let mut row = 0;
        while row < self.size.m {
            let left = self.size.m - row;
            // tiles of about the same height, because low ones are slow
            let count = left.div_ceil(left.div_ceil(most_rows));
            // SAFETY: by the caller's promise
            row += unsafe {
                match count {
                    8.. => self.tile::<V, 8, N>(weight, height, row, block),
                    7 => self.tile::<V, 7, N>(weight, height, row, block),
                    6 => self.tile::<V, 6, N>(weight, height, row, block),
                    5 => self.tile::<V, 5, N>(weight, height, row, block),
                    4 => self.tile::<V, 4, N>(weight, height, row, block),
                    3 => self.tile::<V, 3, N>(weight, height, row, block),
                    2 => self.tile::<V, 2, N>(weight, height, row, block),
                    _ => self.tile::<V, 1, N>(weight, height, row, block),
                }
            };
        }
    }

    /// Adds the products of a block to `R` rows of `N` vectors. Returns `R`.
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const N: usize>(
        &mut self,
        weight: *const T,
        height: usize,
        row: usize,
        block: Block,
    ) -> usize {
        let Size { n, k, .. } = self.size;
        let Block { column, start, depth } = block;
        let per_panel = PANEL / V::LANES;
        let panels = (N / per_panel).max(1);
        let ahead = (AHEAD / (panels * PANEL * size_of::<T>())).max(LEAST_AHEAD);
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
                    *to = T::load(at[v].add(d * PANEL));
                    if v % per_panel == 0 {
                        V::prefetch(at[v].wrapping_add((d + ahead) * PANEL));
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
