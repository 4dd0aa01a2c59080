//! One head's queries, keys and values: out of the fused projection, and their gradients back.

use multiversion::multiversion;

use crate::Angles;
use crate::parts::Shared;

/// Shape of a call.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub batch: usize,
    pub time: usize,
    pub heads: usize,
    pub dim: usize,
}

impl Heads {
    /// What queries are multiplied by: `dim^-0.5`.
    pub fn scale(&self) -> f32 {
        (self.dim as f32).sqrt().recip()
    }

    /// Where a position's head starts in the projection `[batch, time, heads, 3 * dim]`.
    fn at(&self, row: usize, time: usize, head: usize) -> usize {
        ((row * self.time + time) * self.heads + head) * 3 * self.dim
    }

    /// Where a position's head starts in the output `[batch, time, heads, dim]`.
    pub fn out(&self, row: usize, time: usize, head: usize) -> usize {
        ((row * self.time + time) * self.heads + head) * self.dim
    }

    /// Rotated and scaled queries, rotated keys, and values, `[time, dim]` each.
    pub fn load(
        &self,
        qkv: &[f32],
        (row, head): (usize, usize),
        angles: &Angles,
        [q, k, v]: [&mut [f32]; 3],
    ) {
        let d = self.dim;
        for t in 0..self.time {
            let angles = angles.at(row, t);
            let from = &qkv[self.at(row, t, head)..][..3 * d];
            let to = t * d..(t + 1) * d;
            rotate(&from[..d], &mut q[to.clone()], angles, 1.0, self.scale());
            rotate(&from[d..2 * d], &mut k[to.clone()], angles, 1.0, 1.0);
            v[to].copy_from_slice(&from[2 * d..]);
        }
    }

    /// The gradients of those, turned back, into the gradient of the projection.
    pub fn store(
        &self,
        d_qkv: &Shared,
        (row, head): (usize, usize),
        angles: &Angles,
        [d_q, d_k, d_v]: [&[f32]; 3],
    ) {
        let d = self.dim;
        for t in 0..self.time {
            let angles = angles.at(row, t);
            // SAFETY: each (row, head) is one task, and owns these places
            let to = unsafe { d_qkv.slice(self.at(row, t, head), 3 * d) };
            let from = t * d..(t + 1) * d;
            rotate(&d_q[from.clone()], &mut to[..d], angles, -1.0, self.scale());
            rotate(&d_k[from.clone()], &mut to[d..2 * d], angles, -1.0, 1.0);
            to[2 * d..].copy_from_slice(&d_v[from]);
        }
    }
}

/// Half-split rotation of the first `2 * cos.len()` dimensions, then a scale; `turn` -1 is its
/// transpose, which turns back.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma"))]
fn rotate(from: &[f32], to: &mut [f32], (cos, sin): (&[f32], &[f32]), turn: f32, scale: f32) {
    let half = cos.len();
    let (a, rest) = from.split_at(half);
    let (b, rest) = rest.split_at(half);
    let (to_a, to_rest) = to.split_at_mut(half);
    let (to_b, to_rest) = to_rest.split_at_mut(half);
    for i in 0..half {
        let sin = sin[i] * turn;
        to_a[i] = (a[i] * cos[i] - b[i] * sin) * scale;
        to_b[i] = (b[i] * cos[i] + a[i] * sin) * scale;
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = from * scale;
    }
}
