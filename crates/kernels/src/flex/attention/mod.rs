//! Rotary self-attention from the fused projection: over whole sequences with a derivative, and
//! over a KV cache without one.

mod cached;
mod head;
mod loops;
mod products;
mod self_attention;
mod view;

pub(crate) use cached::cached_attention;
pub(crate) use self_attention::self_attention;

use rayon::prelude::*;

use head::Heads;
use view::View;

/// The largest number of queries for which plain loops are faster than matrix products.
const MAX_LOOP_QUERIES: usize = 16;

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// `[time, dim]` each
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_q: Vec<f32>,
    d_k: Vec<f32>,
    d_v: Vec<f32>,
    out: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
}

/// Writes the attention output of each query to `out` (`[queries, dim]`), and the log of its softmax
/// denominator to `lse`.
fn forward(view: View, out: &mut [f32], lse: &mut [f32], scores: &mut Vec<f32>) {
    if view.queries() <= MAX_LOOP_QUERIES {
        loops::forward(view, out, lse, scores);
    } else {
        products::forward(view, out, lse, scores);
    }
}

/// Calls `f` for every (row, head) in parallel; small items are grouped into one rayon task.
fn for_each_head(heads: Heads, keys: usize, f: impl Fn(&mut Scratch, usize, usize) + Sync + Send) {
    let min_len = (512 / (heads.time * keys.max(1))).max(1);
    (0..heads.batch * heads.heads)
        .into_par_iter()
        .with_min_len(min_len)
        .for_each_init(Scratch::default, |scratch, i| f(scratch, i / heads.heads, i % heads.heads));
}
