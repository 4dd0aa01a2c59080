//! A few queries, by plain loops.

use multiversion::multiversion;

use crate::math::{add_scaled, dot, exp_of_difference, max};

use super::view::{Result, View};

/// Writes what each query gets to `out` (`[queries, dim]`), and the log of its softmax denominator
/// to `lse`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
pub fn forward(view: View, out: &mut [f32], lse: &mut [f32], scores: &mut Vec<f32>) {
    let d = view.dim;
    for (i, (q, out)) in view.q.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        scores.clear();
        let keys = view.k.chunks_exact(d).take(view.visible(i));
        scores.extend(keys.map(|k| dot(q, k)));
        view.hide(scores);
        let most = max(scores);
        let sum = exp_of_difference(scores, most);
        lse[i] = most + sum.ln();
        out.fill(0.0);
        for (p, v) in scores.iter().zip(view.v.chunks_exact(d)) {
            add_scaled(out, *p, v);
        }
        let factor = sum.recip();
        out.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Adds the gradients of queries, keys and values.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
pub fn backward(
    view: View,
    result: Result,
    [d_q, d_k, d_v]: [&mut [f32]; 3],
    scores: &mut Vec<f32>,
) {
    let d = view.dim;
    for (i, q) in view.q.chunks_exact(d).enumerate() {
        let (out, d_out) = result.of(i, d);
        let along = dot(out, d_out);
        scores.clear();
        let keys = view.k.chunks_exact(d).take(view.visible(i));
        scores.extend(keys.map(|k| dot(q, k)));
        view.hide(scores);
        exp_of_difference(scores, result.lse[i]);
        for (j, p) in scores.iter().enumerate() {
            let (k, v) = (&view.k[j * d..][..d], &view.v[j * d..][..d]);
            let d_score = p * (dot(d_out, v) - along);
            add_scaled(&mut d_v[j * d..][..d], *p, d_out);
            add_scaled(&mut d_q[i * d..][..d], d_score, k);
            add_scaled(&mut d_k[j * d..][..d], d_score, q);
        }
    }
}
