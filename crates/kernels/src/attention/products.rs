//! Many queries: matrix products over a few of them at a time, so that the scores stay in the
//! cache, and over the keys those see only.

use std::ops::Range;

use gemm::{Parallelism, gemm};
use multiversion::multiversion;

use crate::math::{dot, exp_of_difference, max};

use super::view::{Result, View};

/// Scores held at a time: half a MiB of f32.
const SCORES: usize = 1 << 17;

/// Writes what each query gets to `out` (`[queries, dim]`), and the log of its softmax denominator
/// to `lse`.
pub fn forward(view: View, out: &mut [f32], lse: &mut [f32], scores: &mut Vec<f32>) {
    let d = view.dim;
    for at in queries(&view) {
        let (start, count) = (at.start, at.len());
        let seen = view.visible(at.end - 1);
        scores.resize(count * seen, 0.0);
        let q = &view.q[start * d..];
        product([count, seen, d], scores, (seen, 1), 0.0, q, (d, 1), view.k, (1, d));
        for (i, scores) in scores.chunks_exact_mut(seen).enumerate() {
            let visible = view.visible(start + i);
            view.hide(&mut scores[..visible]);
            lse[start + i] = softmax(scores, visible);
        }
        let out = &mut out[start * d..];
        product([count, d, seen], out, (d, 1), 0.0, scores, (seen, 1), view.v, (d, 1));
    }
}

/// Adds the gradients of keys and values, and writes those of the queries.
pub fn backward(
    view: View,
    result: Result,
    [d_q, d_k, d_v]: [&mut [f32]; 3],
    [scores, d_scores]: [&mut Vec<f32>; 2],
) {
    let d = view.dim;
    for at in queries(&view) {
        let (start, count) = (at.start, at.len());
        let seen = view.visible(at.end - 1);
        let (d_out, stride) = (&result.d_out[start * result.stride..], result.stride);
        scores.resize(count * seen, 0.0);
        d_scores.resize(count * seen, 0.0);
        let q = &view.q[start * d..];
        product([count, seen, d], scores, (seen, 1), 0.0, q, (d, 1), view.k, (1, d));
        product([count, seen, d], d_scores, (seen, 1), 0.0, d_out, (stride, 1), view.v, (1, d));
        for (i, (p, d_p)) in
            scores.chunks_exact_mut(seen).zip(d_scores.chunks_exact_mut(seen)).enumerate()
        {
            let visible = view.visible(start + i);
            view.hide(&mut p[..visible]);
            let (out, d_out) = result.of(start + i, d);
            through_softmax(p, d_p, visible, result.lse[start + i], out, d_out);
        }
        product([seen, d, count], d_v, (d, 1), 1.0, scores, (1, seen), d_out, (stride, 1));
        product([seen, d, count], d_k, (d, 1), 1.0, d_scores, (1, seen), q, (d, 1));
        let d_q = &mut d_q[start * d..];
        product([count, d, seen], d_q, (d, 1), 0.0, d_scores, (seen, 1), view.k, (d, 1));
    }
}

/// Queries taken together.
fn queries(view: &View) -> impl Iterator<Item = Range<usize>> + use<> {
    let all = view.queries();
    let count = (SCORES / view.keys()).clamp(16, 64);
    (0..all).step_by(count).map(move |start| start..all.min(start + count))
}

/// Softmax of the first `visible` scores, 0 after them; returns the log of the denominator.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
fn softmax(scores: &mut [f32], visible: usize) -> f32 {
    let (scores, hidden) = scores.split_at_mut(visible);
    hidden.fill(0.0);
    let most = max(scores);
    let sum = exp_of_difference(scores, most);
    let factor = sum.recip();
    for p in scores {
        *p *= factor;
    }
    most + sum.ln()
}

/// Scores to probabilities, and the gradient of the probabilities to that of the scores.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
fn through_softmax(
    p: &mut [f32],
    d_p: &mut [f32],
    visible: usize,
    lse: f32,
    out: &[f32],
    d_out: &[f32],
) {
    let along = dot(out, d_out);
    p[visible..].fill(0.0);
    d_p[visible..].fill(0.0);
    let (p, d_p) = (&mut p[..visible], &mut d_p[..visible]);
    exp_of_difference(p, lse);
    for (d_p, p) in d_p.iter_mut().zip(p) {
        *d_p = *p * (*d_p - along);
    }
}

/// `c = keep * c + a b` for `[m, n, k] = shape`; strides are `(row, column)`.
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
fn product(
    [m, n, k]: [usize; 3],
    c: &mut [f32],
    c_stride: (usize, usize),
    keep: f32,
    a: &[f32],
    a_stride: (usize, usize),
    b: &[f32],
    b_stride: (usize, usize),
) {
    let last = |rows: usize, columns: usize, stride: (usize, usize)| {
        (rows - 1) * stride.0 + (columns - 1) * stride.1
    };
    assert!(last(m, n, c_stride) < c.len());
    assert!(last(m, k, a_stride) < a.len());
    assert!(last(k, n, b_stride) < b.len());
    // SAFETY: all three matrices lie inside their slices by the checks above
    unsafe {
        gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            c_stride.1 as isize,
            c_stride.0 as isize,
            keep != 0.0,
            a.as_ptr(),
            a_stride.1 as isize,
            a_stride.0 as isize,
            b.as_ptr(),
            b_stride.1 as isize,
            b_stride.0 as isize,
            keep,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
