//! A head over many positions: matrix products over a few queries at a time, so that the scores
//! stay in the cache, and over the keys those queries see only.

use std::ops::Range;

use gemm::{Parallelism, gemm};
use multiversion::multiversion;

use crate::math::{dot, exp_of_difference, max};
use crate::parts::Shared;

use super::{Scratch, Task};

/// Scores held at a time: half a MiB of f32.
const SCORES: usize = 1 << 17;

pub fn forward(
    task: &Task,
    row: usize,
    head: usize,
    scratch: &mut Scratch,
    lse: &mut [f32],
    out: Shared<'_>,
) {
    let (time, d) = (task.heads.time, task.heads.dim);
    let Scratch { q, k, v, scores, d_q: mixed, .. } = scratch;
    for at in queries(time) {
        let (start, count) = (at.start, at.len());
        let seen = task.order.visible(row, at.end - 1, time);
        scores.resize(count * seen, 0.0);
        mixed.resize(count * d, 0.0);
        product([count, seen, d], scores, (seen, 1), 0.0, &q[start * d..], (d, 1), k, (1, d));
        for (i, scores) in scores.chunks_exact_mut(seen).enumerate() {
            let visible = task.order.visible(row, start + i, time);
            task.hide(row, &mut scores[..visible]);
            lse[start + i] = softmax(scores, visible);
        }
        product([count, d, seen], mixed, (d, 1), 0.0, scores, (seen, 1), v, (d, 1));
        for (i, mixed) in mixed.chunks_exact(d).enumerate() {
            // SAFETY: each (row, head) is one task, and owns these places
            let out = unsafe { out.slice(task.heads.out(row, start + i, head), d) };
            out.copy_from_slice(mixed);
        }
    }
}

pub fn backward(
    task: &Task,
    row: usize,
    head: usize,
    scratch: &mut Scratch,
    lse: &[f32],
    out: &[f32],
    d_out: &[f32],
) {
    let (time, d) = (task.heads.time, task.heads.dim);
    let stride = task.heads.heads * d;
    let Scratch { q, k, v, d_q, d_k, d_v, scores, d_scores } = scratch;
    for at in queries(time) {
        let (start, count) = (at.start, at.len());
        let seen = task.order.visible(row, at.end - 1, time);
        let first = task.heads.out(row, start, head);
        let (out, d_out) = (&out[first..], &d_out[first..]);
        scores.resize(count * seen, 0.0);
        d_scores.resize(count * seen, 0.0);
        let q = &q[start * d..];
        product([count, seen, d], scores, (seen, 1), 0.0, q, (d, 1), k, (1, d));
        product([count, seen, d], d_scores, (seen, 1), 0.0, d_out, (stride, 1), v, (1, d));
        for (i, (p, d_p)) in
            scores.chunks_exact_mut(seen).zip(d_scores.chunks_exact_mut(seen)).enumerate()
        {
            let visible = task.order.visible(row, start + i, time);
            task.hide(row, &mut p[..visible]);
            let at = i * stride..i * stride + d;
            through_softmax(p, d_p, visible, lse[start + i], &out[at.clone()], &d_out[at]);
        }
        product([seen, d, count], d_v, (d, 1), 1.0, scores, (1, seen), d_out, (stride, 1));
        product([seen, d, count], d_k, (d, 1), 1.0, d_scores, (1, seen), q, (d, 1));
        let d_q = &mut d_q[start * d..];
        product([count, d, seen], d_q, (d, 1), 0.0, d_scores, (seen, 1), k, (d, 1));
    }
}

/// Queries taken together.
fn queries(time: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (SCORES / time).clamp(16, 64);
    (0..time).step_by(count).map(move |start| start..time.min(start + count))
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
