//! Rotary self-attention from the fused projection: over its own keys, with a derivative, and over
//! those of a cache.

mod cached;
mod head;
mod loops;
mod products;
mod training;
mod view;

pub use cached::cached_attention;
pub use training::self_attention;

use rayon::prelude::*;

use head::Heads;
use view::View;

/// Up to this many queries plain loops are the quicker way.
const FEW: usize = 16;

/// Scratch of one thread.
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

/// What each query of `view` gets.
fn forward(view: View, out: &mut [f32], lse: &mut [f32], scores: &mut Vec<f32>) {
    if view.queries() <= FEW {
        loops::forward(view, out, lse, scores);
    } else {
        products::forward(view, out, lse, scores);
    }
}

/// Runs `one` for every row and head on all threads, those of little work many a task.
fn for_each_head(
    heads: Heads,
    keys: usize,
    one: impl Fn(&mut Scratch, usize, usize) + Sync + Send,
) {
    let at_least = (512 / (heads.time * keys.max(1))).max(1);
    (0..heads.batch * heads.heads)
        .into_par_iter()
        .with_min_len(at_least)
        .for_each_init(Scratch::default, |s, i| one(s, i / heads.heads, i % heads.heads));
}
