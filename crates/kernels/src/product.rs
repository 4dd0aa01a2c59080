//! A few rows times a large matrix: the products of decoding, whose cost is reading the matrix.

use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::tensor::{DType, Shape, Tensor, bf16};
use rayon::prelude::*;

use crate::MANY_ROWS;
use crate::parts::{Shared, contiguous, numbers, tensor};
use crate::vector::{Stored, Vector, Vectorized, run};

/// Rows of the matrix taken together: as many streams as the hardware prefetches well.
const DEPTH: usize = 32;
/// Columns of a task, at most: 4 KiB of each row.
const SPAN: usize = 1024;
/// Columns from the ones in use to those asked for: enough work to hide the memory's latency.
const AHEAD: usize = 256;
/// Vectors of columns that are summed in registers, for up to [`Vector::ROWS`] rows.
const VECTORS: usize = 3;
/// Columns of as many of the widest vectors.
const TILE: usize = 16 * VECTORS;

pub fn linear(x: &Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Option<Tensor<2>> {
    let ([m, k], [_, n]) = (x.dims(), weight.dims());
    let stored = weight.dtype();
    if m >= MANY_ROWS && stored == DType::F32 || x.is_autodiff() || weight.is_autodiff() {
        return None;
    }
    let weight = weight.clone().try_into_primitive::<Flex>().ok()?;
    // a copy would cost more than the product
    let at = weight.layout().contiguous_offsets()?;
    let x = contiguous(&x.clone().try_into_primitive::<Flex>().ok()?)?;
    let bias = match bias {
        Some(bias) => Some(contiguous(&bias.clone().try_into_primitive::<Flex>().ok()?)?),
        None => None,
    };
    let (x, bias, shape) = (numbers(&x), bias.as_ref().map(numbers), [m, n, k]);
    let out = match stored {
        DType::F32 => product(x, &weight.storage::<f32>()[at.0..at.1], bias, shape),
        DType::BF16 => product(x, &weight.storage::<bf16>()[at.0..at.1], bias, shape),
        _ => return None,
    };
    Some(Tensor::from_primitive::<Flex>(tensor(out, Shape::new([m, n]))))
}

/// `x[m, k] weight[k, n] + bias[n]`, all row-major.
fn product<T: Stored>(
    x: &[f32],
    weight: &[T],
    bias: Option<&[f32]>,
    [m, n, k]: [usize; 3],
) -> Vec<f32> {
    assert!(x.len() == m * k && weight.len() == k * n && bias.is_none_or(|bias| bias.len() == n));
    // as many tasks for each thread, of whole vectors
    let tasks = n.div_ceil(SPAN).next_multiple_of(rayon::current_num_threads());
    let span = n.div_ceil(tasks).next_multiple_of(TILE);
    let mut out = Vec::with_capacity(m * n);
    let all = Shared::spare(&mut out);
    (0..n.div_ceil(span)).into_par_iter().for_each_init(Vec::new, |sums, i| {
        let start = i * span;
        let width = span.min(n - start);
        // rows a power of two apart would fight for the same few places of the cache
        let stride = width + 16;
        sums.resize(m * stride, 0.0);
        for row in sums.chunks_exact_mut(stride) {
            match bias {
                Some(bias) => row[..width].copy_from_slice(&bias[start..start + width]),
                None => row.fill(0.0),
            }
        }
        run(Columns { x, weight, sums: &mut *sums, shape: [m, n, k], start, width });
        for (row, sums) in sums.chunks_exact(stride).enumerate() {
            // SAFETY: these columns are this task's own
            unsafe { all.write(row * n + start, &sums[..width]) };
        }
    });
    // SAFETY: the tasks have written all columns of all rows
    unsafe { out.set_len(m * n) };
    out
}

/// Columns `start..start + width` of a product, which is one task's.
struct Columns<'a, T> {
    x: &'a [f32],
    weight: &'a [T],
    /// `[m, width + 16]`
    sums: &'a mut [f32],
    shape: [usize; 3],
    start: usize,
    width: usize,
}

impl<T: Stored> Vectorized for Columns<'_, T> {
    #[inline(always)]
    unsafe fn on<V: Vector>(mut self) {
        let [m, n, k] = self.shape;
        for first in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - first);
            let mut column = 0;
            while column + V::LANES <= self.width {
                // SAFETY: these rows, columns and depth are inside the matrices
                column += unsafe {
                    if column + VECTORS * V::LANES <= self.width {
                        self.tiles::<V, VECTORS>([first, depth, column])
                    } else {
                        self.tiles::<V, 1>([first, depth, column])
                    }
                };
            }
            for column in column..self.width {
                for row in 0..m {
                    let sum = &mut self.sums[row * (self.width + 16) + column];
                    for d in 0..depth {
                        let weight = self.weight[(first + d) * n + self.start + column];
                        *sum += self.x[row * k + first + d] * weight.number();
                    }
                }
            }
        }
    }
}

impl<T: Stored> Columns<'_, T> {
    /// All rows by `N` vectors of columns; returns how many columns those are.
    #[inline(always)]
    unsafe fn tiles<V: Vector, const N: usize>(
        &mut self,
        [first, depth, column]: [usize; 3],
    ) -> usize {
        let [m, n, _] = self.shape;
        let mut copy = [MaybeUninit::<f32>::uninit(); DEPTH * TILE];
        let copy = copy.as_mut_ptr().cast::<f32>();
        let weight = self.weight.as_ptr().wrapping_add(first * n + self.start + column);
        let ahead = self.ahead(first, column);
        let mut row = 0;
        while row < m {
            let at = [row, column, first, depth];
            // SAFETY: the caller's; the first rows have filled the copy for the rest
            row += unsafe {
                match (m - row, row) {
                    (8.., 0) if V::ROWS >= 8 => self.first::<V, 8, N>(weight, ahead, copy, at),
                    (4.., 0) => self.first::<V, 4, N>(weight, ahead, copy, at),
                    (2.., 0) => self.first::<V, 2, N>(weight, ahead, copy, at),
                    (_, 0) => self.first::<V, 1, N>(weight, ahead, copy, at),
                    (8.., _) if V::ROWS >= 8 => {
                        self.tile::<V, f32, 8, N>(copy, TILE, at, |_, _| {})
                    }
                    (4.., _) => self.tile::<V, f32, 4, N>(copy, TILE, at, |_, _| {}),
                    (2.., _) => self.tile::<V, f32, 2, N>(copy, TILE, at, |_, _| {}),
                    _ => self.tile::<V, f32, 1, N>(copy, TILE, at, |_, _| {}),
                }
            };
        }
        N * V::LANES
    }

    /// The part of the matrix that comes [`AHEAD`] columns later: in the same rows, or at the start
    /// of the next ones. It may lie outside.
    #[inline(always)]
    fn ahead(&self, first: usize, column: usize) -> *const T {
        let [_, n, _] = self.shape;
        let (mut first, mut column) = (first, column + AHEAD.min(self.width));
        if column >= self.width {
            (first, column) = (first + DEPTH, column - self.width);
        }
        self.weight.as_ptr().wrapping_add(first * n + self.start + column)
    }

    /// The first rows of a tile, which read the matrix itself: while they are multiplied, the part
    /// from `ahead` on is asked for, a little at a time as the memory can take it, and a copy made
    /// in one place if further rows will need it.
    #[inline(always)]
    unsafe fn first<V: Vector, const R: usize, const N: usize>(
        &mut self,
        weight: *const T,
        ahead: *const T,
        copy: *mut f32,
        at: [usize; 4],
    ) -> usize {
        let [m, n, _] = self.shape;
        let further = m > R;
        // SAFETY: the caller's; a prefetch is a hint
        unsafe {
            self.tile::<V, T, R, N>(weight, n, at, |d, weights: [V; N]| {
                for (v, weight) in weights.into_iter().enumerate() {
                    V::prefetch(ahead.wrapping_add(d * n + v * V::LANES));
                    if further {
                        weight.store(copy.add(d * TILE + v * V::LANES));
                    }
                }
            })
        }
    }

    /// `R` rows by `N` vectors of the output over a few rows of the matrix, each of which `with`
    /// sees; returns `R`.
    #[inline(always)]
    unsafe fn tile<V: Vector, W: Stored, const R: usize, const N: usize>(
        &mut self,
        weight: *const W,
        stride: usize,
        [row, column, first, depth]: [usize; 4],
        with: impl Fn(usize, [V; N]),
    ) -> usize {
        let [_, _, k] = self.shape;
        let apart = self.width + 16;
        // SAFETY: the caller's
        unsafe {
            let x = self.x.as_ptr().add(row * k + first);
            let out = self.sums.as_mut_ptr().add(row * apart + column);
            let mut sums = [[V::splat(0.0); N]; R];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(out.add(r * apart + v * V::LANES));
                }
            }
            for d in 0..depth {
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
                    sum.store(out.add(r * apart + v * V::LANES));
                }
            }
        }
        R
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `weight` is what its stored form says.
    fn check<T: Stored>(weight: impl Fn(f32) -> T) {
        let numbers = |count: usize, step: f32| -> Vec<f32> {
            (0..count).map(|i| ((i * 7919) % 1013) as f32 * step - 0.5).collect()
        };
        for m in [1, 2, 3, 5, 8, 9, 17, 47, 100, 191] {
            for (k, n) in [(1, 1), (16, 32), (33, 70), (40, 1030), (65, 2500)] {
                let x = numbers(m * k, 1e-3);
                let weight: Vec<T> = numbers(k * n, 7e-4).into_iter().map(&weight).collect();
                let bias = numbers(n, 1e-2);
                let bias = (k != 33).then_some(&bias[..]);
                let out = product(&x, &weight, bias, [m, n, k]);
                for (i, out) in out.iter().enumerate() {
                    let terms = (0..k).map(|d| x[i / n * k + d] * weight[d * n + i % n].number());
                    let expected = bias.map_or(0.0, |bias| bias[i % n]) + terms.sum::<f32>();
                    assert!((out - expected).abs() < 1e-4, "{m} {n} {k}: {out} {expected}");
                }
            }
        }
    }

    #[test]
    fn every_shape_is_the_plain_product() {
        check(|x| x);
        check(bf16::from_f32);
    }
}
