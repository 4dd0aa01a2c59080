//! The derivative of attention with a few queries, by plain loops.

use crate::flex::simd::math::{add_scaled, dot, exp_and_sum};

use super::view::{Outputs, View};

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

/// The scores of query `i`, `q`, for all keys that it sees. The function is inlined, so that it is compiled for the
/// instruction sets of its caller.
#[inline(always)]
fn score(view: &View, i: usize, q: &[f32], scores: &mut Vec<f32>) {
    scores.clear();
    scores.resize(view.visible_keys(i), 0.0);
    for (score, k) in scores.iter_mut().zip(view.k.chunks_exact(view.dim)) {
        *score = dot(q, k);
    }
    view.mask_padding(scores);
}
