//! Attention of a few queries, by plain loops.

use multiversion::multiversion;

use crate::flex::simd::math::{add_scaled, dot, exp_and_sum};
use crate::host::max_of;

use super::view::{Outputs, View};

/// See [`forward`](super::per_head::forward).
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
pub(super) fn forward(view: View, out: &mut [f32], lse: &mut [f32], scores: &mut Vec<f32>) {
    let d = view.dim;
    for (i, (q, out)) in view.q.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        scores.clear();
        let keys = view.k.chunks_exact(d).take(view.visible_keys(i));
        scores.extend(keys.map(|k| dot(q, k)));
        view.mask_padding(scores);
        let largest = max_of(scores);
        let sum = exp_and_sum(scores, largest);
        lse[i] = largest + sum.ln();
        out.fill(0.0);
        for (p, v) in scores.iter().zip(view.v.chunks_exact(d)) {
            add_scaled(out, *p, v);
        }
        let factor = sum.recip();
        out.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Adds the gradients of queries, keys and values to `d_q`, `d_k` and `d_v`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
pub(super) fn backward(
    view: View,
    outputs: Outputs,
    [d_q, d_k, d_v]: [&mut [f32]; 3],
    scores: &mut Vec<f32>,
) {
    let d = view.dim;
    for (i, q) in view.q.chunks_exact(d).enumerate() {
        let (out, d_out) = outputs.of(i, d);
        let out_dot_grad = dot(out, d_out);
        scores.clear();
        let keys = view.k.chunks_exact(d).take(view.visible_keys(i));
        scores.extend(keys.map(|k| dot(q, k)));
        view.mask_padding(scores);
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
