//! A head over a few positions, by plain loops.

use multiversion::multiversion;

use crate::math::{add_scaled, dot, exp_of_difference, max};
use crate::parts::Shared;

use super::{SHORT, Scratch, Task};

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
pub fn forward(
    task: &Task,
    row: usize,
    head: usize,
    scratch: &Scratch,
    lse: &mut [f32],
    out: &Shared,
) {
    let (time, d) = (task.heads.time, task.heads.dim);
    for i in 0..time {
        let q = &scratch.q[i * d..][..d];
        let mut scores = [0.0_f32; SHORT];
        let scores = &mut scores[..task.order.visible(row, i, time)];
        for (j, score) in scores.iter_mut().enumerate() {
            *score = dot(q, &scratch.k[j * d..][..d]);
        }
        task.hide(row, scores);
        let most = max(scores);
        let sum = exp_of_difference(scores, most);
        lse[i] = most + sum.ln();
        // SAFETY: each (row, head) is one task, and owns these places
        let out = unsafe { out.slice(task.heads.out(row, i, head), d) };
        for (j, p) in scores.iter().enumerate() {
            add_scaled(out, p / sum, &scratch.v[j * d..][..d]);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
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
    for i in 0..time {
        let at = task.heads.out(row, i, head);
        let (out, d_out) = (&out[at..][..d], &d_out[at..][..d]);
        let along = dot(out, d_out);
        let q = &scratch.q[i * d..][..d];
        let mut p = [0.0_f32; SHORT];
        let p = &mut p[..task.order.visible(row, i, time)];
        for (j, p) in p.iter_mut().enumerate() {
            *p = dot(q, &scratch.k[j * d..][..d]);
        }
        task.hide(row, p);
        exp_of_difference(p, lse[i]);
        for (j, p) in p.iter().enumerate() {
            let (k, v) = (&scratch.k[j * d..][..d], &scratch.v[j * d..][..d]);
            let d_score = p * (dot(d_out, v) - along);
            add_scaled(&mut scratch.d_v[j * d..][..d], *p, d_out);
            add_scaled(&mut scratch.d_q[i * d..][..d], d_score, k);
            add_scaled(&mut scratch.d_k[j * d..][..d], d_score, q);
        }
    }
}
