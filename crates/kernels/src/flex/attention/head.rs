//! Reads the queries, keys and values of one head from the fused projection, and writes their
//! gradients back.

use std::ops::Range;

use crate::flex::parts::DisjointSlices;
use crate::rotary::RotaryAngles;

/// The sizes of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) batch: usize,
    pub(super) time: usize,
    pub(super) heads: usize,
    pub(super) dim: usize,
}

impl Heads {
    /// The factor of the queries: `dim^-0.5`.
    pub(super) fn scale(&self) -> f32 {
        (self.dim as f32).sqrt().recip()
    }

    /// Offset of a head at a position in the projection `[batch, time, heads, 3 * dim]`.
    fn qkv_offset(&self, row: usize, time: usize, head: usize) -> usize {
        ((row * self.time + time) * self.heads + head) * 3 * self.dim
    }

    /// Offset of a head at a position in the output `[batch, time, heads, dim]`.
    pub(super) fn out_offset(&self, row: usize, time: usize, head: usize) -> usize {
        ((row * self.time + time) * self.heads + head) * self.dim
    }

    /// Reads the rotated and scaled queries, the rotated keys, and the values of a row, `[time, dim]` each.
    pub(super) fn load(
        &self,
        qkv: &[f32],
        (row, head): (usize, usize),
        angles: &RotaryAngles,
        to: [&mut [f32]; 3],
    ) {
        let first = row * self.time;
        self.load_from(qkv, (first..first + self.time, head), |t| angles.at(row, t), to);
    }

    /// [`load`](Self::load) for the positions `at` of all rows, with the angles of each of them.
    pub(super) fn load_from<'a>(
        &self,
        qkv: &[f32],
        (at, head): (Range<usize>, usize),
        angles: impl Fn(usize) -> (&'a [f32], &'a [f32]),
        [q, k, v]: [&mut [f32]; 3],
    ) {
        let d = self.dim;
        for (t, position) in at.enumerate() {
            let angles = angles(t);
            let from = &qkv[(position * self.heads + head) * 3 * d..][..3 * d];
            let to = t * d..(t + 1) * d;
            rotate(&from[..d], &mut q[to.clone()], angles, 1.0, self.scale());
            rotate(&from[d..2 * d], &mut k[to.clone()], angles, 1.0, 1.0);
            v[to].copy_from_slice(&from[2 * d..]);
        }
    }

    /// Writes the gradients of queries, keys and values, rotated back, to the gradient of the
    /// projection.
    pub(super) fn store_gradient(
        &self,
        d_qkv: &DisjointSlices,
        (row, head): (usize, usize),
        angles: &RotaryAngles,
        [d_q, d_k, d_v]: [&[f32]; 3],
    ) {
        let d = self.dim;
        for t in 0..self.time {
            let angles = angles.at(row, t);
            // SAFETY: only the task of this (row, head) uses these elements
            let to = unsafe { d_qkv.slice(self.qkv_offset(row, t, head), 3 * d) };
            let from = t * d..(t + 1) * d;
            rotate(&d_q[from.clone()], &mut to[..d], angles, -1.0, self.scale());
            rotate(&d_k[from.clone()], &mut to[d..2 * d], angles, -1.0, 1.0);
            to[2 * d..].copy_from_slice(&d_v[from]);
        }
    }
}

vectorized! {
    /// Rotates the first `2 * cos.len()` dimensions in the half-split form, then scales all dimensions.
    /// `direction` is 1, or -1 for the inverse rotation.
    fn rotate(
        from: &[f32],
        to: &mut [f32],
        angles: (&[f32], &[f32]),
        direction: f32,
        scale: f32,
    ) {
        let (cos, sin) = angles;
        let half = cos.len();
        let (a, rest) = from.split_at(half);
        let (b, rest) = rest.split_at(half);
        let (to_a, to_rest) = to.split_at_mut(half);
        let (to_b, to_rest) = to_rest.split_at_mut(half);
        for i in 0..half {
            let sin = sin[i] * direction;
            to_a[i] = (a[i] * cos[i] - b[i] * sin) * scale;
            to_b[i] = (b[i] * cos[i] + a[i] * sin) * scale;
        }
        for (to, from) in to_rest.iter_mut().zip(rest) {
            *to = from * scale;
        }
    }
}
