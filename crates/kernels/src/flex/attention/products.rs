//! The derivative of attention with many queries, by matrix products. Each product takes a chunk of queries, so that the
//! scores stay in the processor's cache, and only the keys that the chunk sees.

use std::ops::Range;

use gemm::{Parallelism, gemm};

use crate::flex::simd::math::{dot, exp_and_sum};

use super::view::{Outputs, View};

/// Scores per chunk of queries: half a MiB of f32.
const CHUNK_SCORES: usize = 1 << 17;

/// Adds the gradients of keys and values to `d_k` and `d_v`, and writes the gradient of the queries to
/// `d_q`.
pub(super) fn backward(
    view: View,
    outputs: Outputs,
    [d_q, d_k, d_v]: [&mut [f32]; 3],
    [scores, d_scores]: [&mut Vec<f32>; 2],
) {
    let d = view.dim;
    for at in query_chunks(&view) {
        let (start, count) = (at.start, at.len());
        let keys = view.visible_keys(at.end - 1);
        let (d_out, stride) = (&outputs.d_out[start * outputs.stride..], outputs.stride);
        scores.resize(count * keys, 0.0);
        d_scores.resize(count * keys, 0.0);
        let q = &view.q[start * d..];
        product([count, keys, d], scores, (keys, 1), 0.0, q, (d, 1), view.k, (1, d));
        product([count, keys, d], d_scores, (keys, 1), 0.0, d_out, (stride, 1), view.v, (1, d));
        for (i, (p, d_p)) in
            scores.chunks_exact_mut(keys).zip(d_scores.chunks_exact_mut(keys)).enumerate()
        {
            let visible = view.visible_keys(start + i);
            view.mask_padding(&mut p[..visible]);
            let (out, d_out) = outputs.of(start + i, d);
            softmax_backward(p, d_p, visible, outputs.lse[start + i], out, d_out);
        }
        product([keys, d, count], d_v, (d, 1), 1.0, scores, (1, keys), d_out, (stride, 1));
        product([keys, d, count], d_k, (d, 1), 1.0, d_scores, (1, keys), q, (d, 1));
        let d_q = &mut d_q[start * d..];
        product([count, d, keys], d_q, (d, 1), 0.0, d_scores, (keys, 1), view.k, (d, 1));
    }
}

/// Ranges of queries that are computed together.
fn query_chunks(view: &View) -> impl Iterator<Item = Range<usize>> + use<> {
    let all = view.queries();
    let count = (CHUNK_SCORES / view.keys()).clamp(16, 64);
    (0..all).step_by(count).map(move |start| start..all.min(start + count))
}

vectorized! {
    /// Replaces the scores in `p` by probabilities, and the gradient of the probabilities in `d_p` by the
    /// gradient of the scores.
    fn softmax_backward(
        p: &mut [f32],
        d_p: &mut [f32],
        visible: usize,
        lse: f32,
        out: &[f32],
        d_out: &[f32],
    ) {
        let out_dot_grad = dot(out, d_out);
        p[visible..].fill(0.0);
        d_p[visible..].fill(0.0);
        let (p, d_p) = (&mut p[..visible], &mut d_p[..visible]);
        exp_and_sum(p, lse);
        for (d_p, p) in d_p.iter_mut().zip(p) {
            *d_p = *p * (*d_p - out_dot_grad);
        }
    }
}

/// `c = beta * c + a b` for `a` `[m, k]` and `b` `[k, n]`. Strides are `(row, column)`.
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
fn product(
    [m, n, k]: [usize; 3],
    c: &mut [f32],
    c_stride: (usize, usize),
    beta: f32,
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
    // SAFETY: all three matrices are inside their slices by the checks above
    unsafe {
        gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            c_stride.1 as isize,
            c_stride.0 as isize,
            beta != 0.0,
            a.as_ptr(),
            a_stride.1 as isize,
            a_stride.0 as isize,
            b.as_ptr(),
            b_stride.1 as isize,
            b_stride.0 as isize,
            beta,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
