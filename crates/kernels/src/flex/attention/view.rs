//! The attention of one row and head.

use crate::causal_mask::CausalMask;

/// The score of a padding key. It is finite, so that a query that sees no key has a finite output
/// and a finite (unused) gradient.
const MASKED_SCORE: f32 = -1e30;

/// Queries, keys and values of one row and head, and the mask.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// `[queries, dim]`, scaled by `dim^-0.5`
    pub(super) q: &'a [f32],
    /// `[keys, dim]`
    pub(super) k: &'a [f32],
    /// `[keys, dim]`
    pub(super) v: &'a [f32],
    pub(super) mask: &'a CausalMask,
    pub(super) row: usize,
    /// New positions of the row before the first query.
    pub(super) skip: usize,
    pub(super) dim: usize,
}

impl View<'_> {
    pub(super) fn queries(&self) -> usize {
        self.q.len() / self.dim
    }

    pub(super) fn keys(&self) -> usize {
        self.k.len() / self.dim
    }

    /// Returns the number of keys that query `i` sees, without regard to the key mask.
    pub(super) fn visible_keys(&self, i: usize) -> usize {
        self.mask.visible_keys(self.row, self.skip + i, self.keys())
    }

    /// Replaces the scores of padding keys by such a low score that their probability is 0 if the
    /// query sees any other key.
    pub(super) fn mask_padding(&self, scores: &mut [f32]) {
        if let Some(key_mask) = self.mask.key_mask() {
            let key_mask = &key_mask[self.row * self.keys()..];
            for (score, visible) in scores.iter_mut().zip(key_mask) {
                if !visible {
                    *score = MASKED_SCORE;
                }
            }
        }
    }
}

/// The outputs of the queries of a [`View`], and their gradients.
#[derive(Clone, Copy)]
pub(super) struct Outputs<'a> {
    /// Log of each query's softmax denominator, `[queries]`.
    pub(super) lse: &'a [f32],
    /// `[queries, dim]`, with queries `stride` elements apart
    pub(super) out: &'a [f32],
    /// The gradient of `out`, in the same layout.
    pub(super) d_out: &'a [f32],
    pub(super) stride: usize,
}

impl<'a> Outputs<'a> {
    /// The output of query `i` and its gradient, `[dim]` each.
    pub(super) fn of(&self, i: usize, dim: usize) -> (&'a [f32], &'a [f32]) {
        let at = i * self.stride..i * self.stride + dim;
        (&self.out[at.clone()], &self.d_out[at])
    }
}
