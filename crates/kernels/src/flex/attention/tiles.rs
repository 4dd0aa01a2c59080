//! Attention by tiles of queries and keys whose sums stay in registers.
//!
//! The bits of a query's output do not depend on the other queries of a call: a score is the sum of the
//! lanes of one chain of multiply-adds over the dimensions, and an output is one chain over the keys in
//! order.

use std::ops::Range;

use crate::flex::simd::math::exp_and_sum;
use crate::flex::simd::vector::{Vector, Vectorized, dispatch};
use crate::host::max_of;

use super::view::View;

/// Queries of a tile.
const QUERIES: usize = 4;
/// Scores that are in memory together: half a MiB of f32.
const CHUNK_SCORES: usize = 1 << 17;

/// Writes the output of each query to `out` (`[queries, dim]`), and the log of its softmax denominator to
/// `lse`.
pub(super) fn forward(view: View, out: &mut [f32], lse: &mut [f32], scores: &mut Vec<f32>) {
    let (queries, keys) = (view.queries(), view.keys());
    assert!(view.v.len() >= keys * view.dim && out.len() == queries * view.dim);
    assert_eq!(lse.len(), queries);
    let most = (CHUNK_SCORES / keys).clamp(16, 64).min(queries);
    scores.resize(most * keys, 0.0);
    dispatch(Forward { view, out, lse, scores, most });
}

struct Forward<'a> {
    view: View<'a>,
    /// `[queries, dim]`
    out: &'a mut [f32],
    /// `[queries]`
    lse: &'a mut [f32],
    /// `[most, keys]`
    scores: &'a mut [f32],
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
        // SAFETY: by the caller's promise
        unsafe {
            match (V::REGISTERS < 32, at.len()) {
                (_, 1) => self.score_keys::<V, 8>(at),
                (true, _) => self.score_keys::<V, 2>(at),
                (false, _) => self.score_keys::<V, 4>(at),
            }
        }
    }

    /// [`score`](Self::score) with tiles of `K` keys.
    #[inline(always)]
    unsafe fn score_keys<V: Vector, const K: usize>(&mut self, at: &Range<usize>) {
        let visible = self.view.visible_keys(at.end - 1);
        for key in (0..visible).step_by(K) {
            if key + K <= visible {
                // SAFETY: by the caller's promise, here and below
                unsafe { self.score_queries::<V, K>(at, key) };
            } else {
                (key..visible).for_each(|key| unsafe { self.score_queries::<V, 1>(at, key) });
            }
        }
    }

    /// The scores of the queries `at` for `K` keys from `key` on.
    #[inline(always)]
    unsafe fn score_queries<V: Vector, const K: usize>(&mut self, at: &Range<usize>, key: usize) {
        for first in at.clone().step_by(QUERIES) {
            // SAFETY: by the caller's promise, here and below
            if first + QUERIES <= at.end {
                unsafe { self.dots::<V, QUERIES, K>(first, at.start, key) };
            } else {
                (first..at.end).for_each(|i| unsafe { self.dots::<V, 1, K>(i, at.start, key) });
            }
        }
    }

    /// The scores of `Q` queries from `query` on for `K` keys from `key` on. The first row of scores
    /// belongs to the query `start`.
    #[inline(always)]
    unsafe fn dots<V: Vector, const Q: usize, const K: usize>(
        &mut self,
        query: usize,
        start: usize,
        key: usize,
    ) {
        let (d, keys) = (self.view.dim, self.view.keys());
        let q = self.view.q[query * d..][..Q * d].as_ptr();
        let k = self.view.k[key * d..][..K * d].as_ptr();
        let mut rest = [[0.0; K]; Q];
        let whole = d / V::LANES * V::LANES;
        // SAFETY: all reads are inside the `Q` queries and `K` keys; the instruction set is there by the
        // caller's promise
        let sums = unsafe {
            let mut sums = [[V::splat(0.0); K]; Q];
            for at in (0..whole).step_by(V::LANES) {
                let k: [V; K] = std::array::from_fn(|j| V::load(k.add(j * d + at)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let q = V::load(q.add(i * d + at));
                    for (sum, k) in sums.iter_mut().zip(k) {
                        *sum = q.multiply_add(k, *sum);
                    }
                }
            }
            for (i, rest) in rest.iter_mut().enumerate() {
                for (j, rest) in rest.iter_mut().enumerate() {
                    for at in whole..d {
                        *rest += *q.add(i * d + at) * *k.add(j * d + at);
                    }
                }
            }
            sums
        };
        for (i, (sums, rest)) in sums.iter().zip(rest).enumerate() {
            let to = &mut self.scores[(query - start + i) * keys + key..][..K];
            for ((to, sum), rest) in to.iter_mut().zip(sums).zip(rest) {
                // SAFETY: as above
                *to = unsafe { lane_sum(*sum) } + rest;
            }
        }
    }

    /// Replaces the scores of each query by their softmax.
    #[inline(always)]
    fn softmax(&mut self, at: &Range<usize>) {
        let keys = self.view.keys();
        for i in at.clone() {
            let scores = &mut self.scores[(i - at.start) * keys..][..self.view.visible_keys(i)];
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
        let (d, keys) = (self.view.dim, self.view.keys());
        // the keys that all queries see; later queries see more
        let seen = self.view.visible_keys(query);
        while column + C * V::LANES <= d {
            // SAFETY: all reads and writes are inside the slices that `forward` has checked; the instruction
            // set is there by the caller's promise
            unsafe {
                let mut sums = [[V::splat(0.0); C]; Q];
                let scores = self.scores.as_ptr().add((query - start) * keys);
                let v = self.view.v.as_ptr().add(column);
                for key in 0..seen {
                    let v: [V; C] = std::array::from_fn(|c| V::load(v.add(key * d + c * V::LANES)));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let p = V::splat(*scores.add(i * keys + key));
                        for (sum, v) in sums.iter_mut().zip(v) {
                            *sum = p.multiply_add(v, *sum);
                        }
                    }
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    for key in seen..self.view.visible_keys(query + i) {
                        let p = V::splat(*scores.add(i * keys + key));
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
        let (d, keys) = (self.view.dim, self.view.keys());
        for i in queries {
            let scores = &self.scores[(i - start) * keys..][..self.view.visible_keys(i)];
            for column in column..d {
                let v = self.view.v[column..].iter().step_by(d);
                self.out[i * d + column] = scores.iter().zip(v).map(|(p, v)| p * v).sum();
            }
        }
    }
}

/// The sum of the lanes of a vector, by halves.
///
/// # Safety
/// The conditions of [`Vector`] apply.
#[inline(always)]
unsafe fn lane_sum<V: Vector>(x: V) -> f32 {
    let mut lanes = [0.0; 16];
    // SAFETY: a vector has at most 16 lanes; the instruction set is there by the caller's promise
    unsafe { x.store(lanes.as_mut_ptr()) };
    let mut half = V::LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}
