//! A few rows times a large matrix: the products of decoding, whose cost is reading the matrix.

use burn::backend::Flex;
use burn::tensor::{Shape, Tensor};
use rayon::prelude::*;

use crate::parts::{contiguous, numbers, tensor};
use crate::vector::{Vector, Vectorized, run};

/// Rows of the matrix taken together: as many streams as the hardware prefetches well.
const DEPTH: usize = 16;
/// Columns of a task, at most: 2 KiB of each row.
const SPAN: usize = 512;

/// Rows from which on packing the matrix pays, as burn's product does.
const MANY: usize = 48;

pub fn linear(x: &Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Option<Tensor<2>> {
    let ([m, k], [_, n]) = (x.dims(), weight.dims());
    if m >= MANY || x.is_autodiff() || weight.is_autodiff() {
        return None;
    }
    let weight = weight.clone().try_into_primitive::<Flex>().ok()?;
    // a copy would cost more than the product
    if !weight.is_contiguous() {
        return None;
    }
    let (x, weight) =
        (contiguous(&x.clone().try_into_primitive::<Flex>().ok()?)?, contiguous(&weight)?);
    let mut out = match bias {
        Some(bias) => {
            numbers(&contiguous(&bias.clone().try_into_primitive::<Flex>().ok()?)?).repeat(m)
        }
        None => vec![0.0; m * n],
    };
    add_product(numbers(&x), numbers(&weight), &mut out, [m, n, k]);
    Some(Tensor::from_primitive::<Flex>(tensor(out, Shape::new([m, n]))))
}

/// `out[m, n] += x[m, k] weight[k, n]`, all row-major.
fn add_product(x: &[f32], weight: &[f32], out: &mut [f32], [m, n, k]: [usize; 3]) {
    assert!(x.len() == m * k && weight.len() == k * n && out.len() == m * n);
    let all = Columns {
        x: x.as_ptr(),
        weight: weight.as_ptr(),
        out: out.as_mut_ptr(),
        shape: [m, n, k],
        start: 0,
        width: n,
    };
    // as many tasks for each thread, of whole vectors
    let tasks = n.div_ceil(SPAN).next_multiple_of(rayon::current_num_threads());
    let span = n.div_ceil(tasks).next_multiple_of(32);
    (0..n.div_ceil(span)).into_par_iter().for_each(|i| {
        let all = &all;
        let start = i * span;
        run(Columns { start, width: span.min(n - start), ..*all });
    });
}

/// Columns `start..start + width` of a product, which is one task's.
#[derive(Clone, Copy)]
struct Columns {
    x: *const f32,
    weight: *const f32,
    out: *mut f32,
    shape: [usize; 3],
    start: usize,
    width: usize,
}

// SAFETY: tasks write columns of their own, and only read the rest
unsafe impl Send for Columns {}
unsafe impl Sync for Columns {}

impl Vectorized for Columns {
    #[inline(always)]
    unsafe fn on<V: Vector>(self) {
        let [m, _, k] = self.shape;
        for first in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - first);
            let mut row = 0;
            while row < m {
                // SAFETY: these rows and this depth are inside the matrices
                row += unsafe {
                    match m - row {
                        8.. if V::ROWS >= 8 => self.rows::<V, 8>(row, first, depth),
                        4.. => self.rows::<V, 4>(row, first, depth),
                        2.. => self.rows::<V, 2>(row, first, depth),
                        _ => self.rows::<V, 1>(row, first, depth),
                    }
                };
            }
        }
    }
}

impl Columns {
    /// Rows `row..row + R` of the output over a few rows of the matrix; returns `R`.
    #[inline(always)]
    unsafe fn rows<V: Vector, const R: usize>(
        &self,
        row: usize,
        first: usize,
        depth: usize,
    ) -> usize {
        let [_, n, k] = self.shape;
        let end = self.start + self.width;
        let mut column = self.start;
        // SAFETY: all inside the matrices, and the columns are this task's own
        unsafe {
            let x = self.x.add(row * k + first);
            while column + 2 * V::LANES <= end {
                let weight = self.weight.add(first * n + column);
                let out = self.out.add(row * n + column);
                if row == 0 && first + 2 * DEPTH <= k {
                    // the next rows of the matrix, while these are multiplied
                    for d in DEPTH..2 * DEPTH {
                        V::prefetch(weight.add(d * n));
                        V::prefetch(weight.add(d * n + V::LANES));
                    }
                }
                let mut sums = [[V::splat(0.0); 2]; R];
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = [V::load(out.add(r * n)), V::load(out.add(r * n + V::LANES))];
                }
                for d in 0..depth {
                    let a = V::load(weight.add(d * n));
                    let b = V::load(weight.add(d * n + V::LANES));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = V::splat(*x.add(r * k + d));
                        *sums = [x.multiply_add(a, sums[0]), x.multiply_add(b, sums[1])];
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    sums[0].store(out.add(r * n));
                    sums[1].store(out.add(r * n + V::LANES));
                }
                column += 2 * V::LANES;
            }
            for column in column..end {
                for r in 0..R {
                    let mut sum = *self.out.add((row + r) * n + column);
                    for d in 0..depth {
                        sum += *x.add(r * k + d) * *self.weight.add((first + d) * n + column);
                    }
                    *self.out.add((row + r) * n + column) = sum;
                }
            }
        }
        R
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_the_plain_product() {
        let numbers = |count: usize, step: f32| -> Vec<f32> {
            (0..count).map(|i| ((i * 7919) % 1013) as f32 * step - 0.5).collect()
        };
        for m in [1, 2, 3, 5, 8, 9, 17, 47] {
            for (k, n) in [(1, 1), (16, 32), (33, 70), (40, 1030)] {
                let (x, weight) = (numbers(m * k, 1e-3), numbers(k * n, 7e-4));
                let start = numbers(m * n, 1e-2);
                let mut out = start.clone();
                add_product(&x, &weight, &mut out, [m, n, k]);
                for (i, out) in out.iter().enumerate() {
                    let terms = (0..k).map(|d| x[i / n * k + d] * weight[d * n + i % n]);
                    let expected = start[i] + terms.sum::<f32>();
                    assert!((out - expected).abs() < 1e-4, "{m} {n} {k}: {out} {expected}");
                }
            }
        }
    }
}
