//! Attention of a few queries, by plain loops.

use crate::flex::simd::math::{add_scaled, dot, exp_and_sum};
use crate::host::max_of;

use super::view::{Outputs, View};

vectorized! {
    /// See [`forward`](super::per_head::forward).
    pub(super) fn forward(view: View, out: &mut [f32], lse: &mut [f32], scores: &mut Vec<f32>) {
        let d = view.dim;
        for (i, (q, out)) in view.q.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
            score(&view, i, q, scores);
            let largest = max_of(scores);
            let sum = exp_and_sum(scores, largest);
            lse[i] = largest + sum.ln();
            weighted_sum(scores, &view, sum.recip(), out);
        }
    }
}

vectorized! {
    /// Adds the gradients of queries, keys and values to `d_q`, `d_k` and `d_v`.
    pub(super) fn backward(
        view: View,
        outputs: Outputs,
        gradients: [&mut [f32]; 3],
        scores: &mut Vec<f32>,
    ) {
        let [d_q, d_k, d_v] = gradients;
        let d = view.dim;
        for (i, q) in view.q.chunks_exact(d).enumerate() {
            let (out, d_out) = outputs.of(i, d);
            let out_dot_grad = dot(out, d_out);
            score(&view, i, q, scores);
            exp_and_sum(scores, outputs.lse[i]);
            for (j, p) in scores.iter().enumerate() {
                let (k, v) = (&view.k[j * d..][..d], &view.v[j * d..][..d]);
                let d_score = p * (dot(d_out, v) - out_dot_grad);
                add_scaled(&mut d_v[j * d..][..d], *p, d_out);
                add_scaled(&mut d_q[i * d..][..d], d_score, k);
                add_scaled(&mut d_k[j * d..][..d], d_score, q);
            }
        }
    }
}

// The functions below are inlined, so that they are compiled for the instruction sets of their callers. The
// closure of an iterator may not be.

/// The scores of query `i`, `q`, for all keys that it sees.
#[inline(always)]
fn score(view: &View, i: usize, q: &[f32], scores: &mut Vec<f32>) {
    scores.clear();
    scores.resize(view.visible_keys(i), 0.0);
    for (score, k) in scores.iter_mut().zip(view.k.chunks_exact(view.dim)) {
        *score = dot(q, k);
    }
    view.mask_padding(scores);
}

/// The sum of all values times their `weights`, times `factor`.
#[inline(always)]
fn weighted_sum(weights: &[f32], view: &View, factor: f32, out: &mut [f32]) {
    let mut done = 0;
    // sums that stay in registers
    done += columns::<64>(weights, view, factor, &mut out[done..], done);
    done += columns::<16>(weights, view, factor, &mut out[done..], done);
    columns::<1>(weights, view, factor, &mut out[done..], done);
}

/// Computes groups of `N` elements of [`weighted_sum`], the first of which is `start`. Returns the
/// number of elements.
#[inline(always)]
fn columns<const N: usize>(
    weights: &[f32],
    view: &View,
    factor: f32,
    out: &mut [f32],
    start: usize,
) -> usize {
    let groups = out.len() / N;
    for (group, out) in out.chunks_exact_mut(N).enumerate() {
        let first = start + group * N;
        let mut sums = [0.0_f32; N];
        for (p, v) in weights.iter().zip(view.v.chunks_exact(view.dim)) {
            let v: &[f32; N] = v[first..first + N].try_into().expect("N elements");
            for (sum, v) in sums.iter_mut().zip(v) {
                *sum += p * v;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum * factor;
        }
    }
    groups * N
}
