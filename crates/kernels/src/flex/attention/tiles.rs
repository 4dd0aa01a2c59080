//! Attention by tiles of queries and keys whose sums stay in registers.
//!
//! The bits of a query's output do not depend on the other queries of a call: a score is one chain of
//! multiply-adds over the dimensions, and an output is one chain over the keys in order.

use std::ops::Range;

use crate::flex::simd::math::exp_and_sum;
use crate::flex::simd::vector::{Vector, Vectorized, dispatch};
use crate::host::max_of;

use super::view::View;

/// Queries of a tile.
const QUERIES: usize = 4;
/// Vectors of keys of a tile.
const VECTORS: usize = 2;
/// The largest number of lanes of a vector.
const MOST_LANES: usize = 16;
/// Scores that are in memory together: half a MiB of f32.
const CHUNK_SCORES: usize = 1 << 17;

/// Writes the output of each query to `out` (`[queries, dim]`), and the log of its softmax denominator to
/// `lse`.
pub(super) fn forward(view: View, out: &mut [f32], lse: &mut [f32], scores: &mut Vec<f32>) {
    let (queries, keys) = (view.queries(), view.keys());
    assert!(view.v.len() >= keys * view.dim && out.len() == queries * view.dim);
    assert_eq!(lse.len(), queries);
    let most = (CHUNK_SCORES / keys).clamp(16, 64).min(queries);
    // rows of whole vectors
    let stride = keys.next_multiple_of(MOST_LANES);
    let vector = MOST_LANES * view.dim;
    scores.resize(most * stride + (VECTORS + 1) * vector, 0.0);
    let (scores, keys) = scores.split_at_mut(most * stride);
    let (turned, last) = keys.split_at_mut(VECTORS * vector);
    dispatch(Forward { view, out, lse, scores, stride, turned, last, most });
}

struct Forward<'a> {
    view: View<'a>,
    /// `[queries, dim]`
    out: &'a mut [f32],
    /// `[queries]`
    lse: &'a mut [f32],
    /// `[most, stride]`
    scores: &'a mut [f32],
    stride: usize,
    /// Vectors of keys, `[VECTORS, dim, lanes]`
    turned: &'a mut [f32],
    /// The last keys, `[lanes, dim]`
    last: &'a mut [f32],
    /// The largest number of queries whose scores are in memory together.
    most: usize,
}

impl Vectorized for Forward<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        for start in (0..self.view.queries()).step_by(self.most) {
            let at = start..(start + self.most).min(self.view.queries());
            // SAFETY: by the caller's promise, here and below
            unsafe { self.score::<V>(&at) };
            self.softmax(&at);
            for first in at.clone().step_by(QUERIES) {
                if first + QUERIES <= at.end {
                    unsafe { self.combine::<V, QUERIES>(first, start) };
                } else {
                    (first..at.end).for_each(|i| unsafe { self.combine::<V, 1>(i, start) });
                }
            }
        }
    }
}

impl Forward<'_> {
    /// The scores of the queries `at` for all keys that the last of them sees.
    #[inline(always)]
    unsafe fn score<V: Vector>(&mut self, at: &Range<usize>) {
        let visible = self.view.visible_keys(at.end - 1);
        let mut key = 0;
        // SAFETY: by the caller's promise, here and below
        while key < visible {
            if key + VECTORS * V::LANES <= visible {
                key = unsafe { self.score_keys::<V, VECTORS>(at, key) };
            } else {
                key = unsafe { self.score_keys::<V, 1>(at, key) };
            }
        }
    }

    /// The scores of the queries `at` for `K` vectors of keys from `key` on. Returns the next key.
    #[inline(always)]
    unsafe fn score_keys<V: Vector, const K: usize>(
        &mut self,
        at: &Range<usize>,
        key: usize,
    ) -> usize {
        for vector in 0..K {
            // SAFETY: by the caller's promise, here and below
            unsafe { self.turn_keys::<V>(key + vector * V::LANES, vector) };
        }
        for first in at.clone().step_by(QUERIES) {
            if first + QUERIES <= at.end {
                unsafe { self.dots::<V, QUERIES, K>(first, at.start, key) };
            } else {
                (first..at.end).for_each(|i| unsafe { self.dots::<V, 1, K>(i, at.start, key) });
            }
        }
        key + K * V::LANES
    }

    /// Writes a vector of keys from `key` on to `turned`, the keys of a dimension side by side.
    #[inline(always)]
    unsafe fn turn_keys<V: Vector>(&mut self, key: usize, vector: usize) {
        let (d, lanes) = (self.view.dim, V::LANES);
        let keys = &self.view.k[key * d..];
        let mut from = &keys[..keys.len().min(lanes * d)];
        if from.len() < lanes * d {
            // the last keys; the other lanes are not used
            self.last[..from.len()].copy_from_slice(from);
            from = &self.last[..lanes * d];
        }
        let to = &mut self.turned[vector * d * lanes..][..d * lanes];
        let whole = d / lanes * lanes;
        for first in (0..whole).step_by(lanes) {
            // SAFETY: the square is inside both slices; the instruction set is there by the caller's promise
            unsafe {
                V::transpose(from.as_ptr().add(first), d, to.as_mut_ptr().add(first * lanes))
            };
        }
        for i in whole..d {
            (0..lanes).for_each(|key| to[i * lanes + key] = from[key * d + i]);
        }
    }

    /// The scores of `Q` queries from `query` on for the `K` vectors of `turned`, whose first key is `key`. The
    /// first row of scores belongs to the query `start`.
    #[inline(always)]
    unsafe fn dots<V: Vector, const Q: usize, const K: usize>(
        &mut self,
        query: usize,
        start: usize,
        key: usize,
    ) {
        let d = self.view.dim;
        let q = self.view.q[query * d..][..Q * d].as_ptr();
        let k = self.turned[..K * d * V::LANES].as_ptr();
        let to = &mut self.scores[(query - start) * self.stride + key..];
        assert!(to.len() >= (Q - 1) * self.stride + K * V::LANES);
        // SAFETY: all reads are inside the `Q` queries and `K` vectors, and the writes inside the rows; the
        // instruction set is there by the caller's promise
        unsafe {
            let mut sums = [[V::splat(0.0); K]; Q];
            for at in 0..d {
                let k: [V; K] = std::array::from_fn(|j| V::load(k.add((j * d + at) * V::LANES)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let q = V::splat(*q.add(i * d + at));
                    for (sum, k) in sums.iter_mut().zip(k) {
                        *sum = q.multiply_add(k, *sum);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                let to = to.as_mut_ptr().add(i * self.stride);
                for (j, sum) in sums.iter().enumerate() {
                    sum.store(to.add(j * V::LANES));
                }
            }
        }
    }

    /// Replaces the scores of each query by their softmax.
    #[inline(always)]
    fn softmax(&mut self, at: &Range<usize>) {
        for i in at.clone() {
            let scores =
                &mut self.scores[(i - at.start) * self.stride..][..self.view.visible_keys(i)];
            self.view.mask_padding(scores);
            let largest = max_of(scores);
            let sum = exp_and_sum(scores, largest);
            self.lse[i] = largest + sum.ln();
            let factor = sum.recip();
            scores.iter_mut().for_each(|p| *p *= factor);
        }
    }

    /// The outputs of `Q` queries from `query` on.
    #[inline(always)]
    unsafe fn combine<V: Vector, const Q: usize>(&mut self, query: usize, start: usize) {
        let mut column = 0;
        // SAFETY: by the caller's promise, here and below
        unsafe {
            if V::REGISTERS < 32 && Q > 1 {
                column = self.columns::<V, Q, 2>(query, start, column);
            } else {
                column = self.columns::<V, Q, 4>(query, start, column);
            }
            column = self.columns::<V, Q, 1>(query, start, column);
        }
        self.rest(query..query + Q, start, column);
    }

    /// The weighted sums of the values in groups of `C` vectors of columns from `column` on. Returns the
    /// first column that is left.
    #[inline(always)]
    unsafe fn columns<V: Vector, const Q: usize, const C: usize>(
        &mut self,
        query: usize,
        start: usize,
        mut column: usize,
    ) -> usize {
        let (d, stride) = (self.view.dim, self.stride);
        // the keys that all queries see; later queries see more
        let seen = self.view.visible_keys(query);
        while column + C * V::LANES <= d {
            // SAFETY: all reads and writes are inside the slices that `forward` has checked; the instruction
            // set is there by the caller's promise
            unsafe {
                let mut sums = [[V::splat(0.0); C]; Q];
                let scores = self.scores.as_ptr().add((query - start) * stride);
                let v = self.view.v.as_ptr().add(column);
                for key in 0..seen {
                    let v: [V; C] = std::array::from_fn(|c| V::load(v.add(key * d + c * V::LANES)));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let p = V::splat(*scores.add(i * stride + key));
                        for (sum, v) in sums.iter_mut().zip(v) {
                            *sum = p.multiply_add(v, *sum);
                        }
                    }
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    for key in seen..self.view.visible_keys(query + i) {
                        let p = V::splat(*scores.add(i * stride + key));
                        for (c, sum) in sums.iter_mut().enumerate() {
                            *sum = p.multiply_add(V::load(v.add(key * d + c * V::LANES)), *sum);
                        }
                    }
                    let out = self.out.as_mut_ptr().add((query + i) * d + column);
                    for (c, sum) in sums.iter().enumerate() {
                        sum.store(out.add(c * V::LANES));
                    }
                }
            }
            column += C * V::LANES;
        }
        column
    }

    /// The weighted sums of the values in the columns from `column` on, which are less than a vector.
    #[inline(always)]
    fn rest(&mut self, queries: Range<usize>, start: usize, column: usize) {
        let d = self.view.dim;
        for i in queries {
            let scores = &self.scores[(i - start) * self.stride..][..self.view.visible_keys(i)];
            for column in column..d {
                let v = self.view.v[column..].iter().step_by(d);
                self.out[i * d + column] = scores.iter().zip(v).map(|(p, v)| p * v).sum();
            }
        }
    }
}
