//! The work of both kinds of attention for each row and head.

use rayon::prelude::*;
/// The largest number of queries for which plain loops compute the derivative faster than matrix products.
pub(super) const MAX_LOOP_QUERIES: usize = 16;

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[time, dim]` each
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    pub(super) d_q: Vec<f32>,
    pub(super) d_k: Vec<f32>,
    pub(super) d_v: Vec<f32>,
    pub(super) out: Vec<f32>,
    pub(super) scores: Vec<f32>,
    pub(super) d_scores: Vec<f32>,
}

/// Calls `f` for every (row, head) in parallel. Items with few `scores` are grouped into one rayon task.
pub(super) fn for_each_head(
    rows: usize,
    heads: usize,
    scores: usize,
    f: impl Fn(&mut Scratch, usize, usize) + Sync + Send,
) {
    let min_len = (512 / scores.max(1)).max(1);
    (0..rows * heads)
        .into_par_iter()
        .with_min_len(min_len)
        .for_each_init(Scratch::default, |scratch, i| f(scratch, i / heads, i % heads));
}
