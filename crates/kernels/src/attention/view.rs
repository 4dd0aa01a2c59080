//! What one row and head attends with.

use crate::Order;

/// Finite, so that a query that sees nothing has numbers, and its (unused) gradients too.
const MASKED_SCORE: f32 = -1e30;

/// Queries, keys and values of one row and head, and who sees whom.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// `[queries, dim]`, scaled
    pub q: &'a [f32],
    /// `[keys, dim]`
    pub k: &'a [f32],
    /// `[keys, dim]`
    pub v: &'a [f32],
    pub order: &'a Order,
    pub row: usize,
    pub dim: usize,
}

impl View<'_> {
    pub fn queries(&self) -> usize {
        self.q.len() / self.dim
    }

    pub fn keys(&self) -> usize {
        self.k.len() / self.dim
    }

    /// How many keys query `i` sees.
    pub fn visible(&self, i: usize) -> usize {
        self.order.visible(self.row, i, self.keys())
    }

    /// Sets the scores of keys that are padding so low that they vanish beside any other.
    pub fn hide(&self, scores: &mut [f32]) {
        if let Some(seen) = &self.order.seen {
            let seen = &seen[self.row * self.keys()..];
            for (score, seen) in scores.iter_mut().zip(seen) {
                if !seen {
                    *score = MASKED_SCORE;
                }
            }
        }
    }
}

/// What came of a view, and the gradient of it.
#[derive(Clone, Copy)]
pub struct Result<'a> {
    /// Log of each query's softmax denominator, `[queries]`.
    pub lse: &'a [f32],
    /// `[queries, dim]`, queries `stride` apart
    pub out: &'a [f32],
    /// The same of the gradient.
    pub d_out: &'a [f32],
    pub stride: usize,
}

impl<'a> Result<'a> {
    /// Output of query `i` and its gradient, `[dim]` each.
    pub fn of(&self, i: usize, dim: usize) -> (&'a [f32], &'a [f32]) {
        let at = i * self.stride..i * self.stride + dim;
        (&self.out[at.clone()], &self.d_out[at])
    }
}
