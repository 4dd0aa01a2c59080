//! Scaled dot-product attention.

use burn::tensor::{Bool, Tensor, activation::softmax};

use crate::mask::MASKED_SCORE;
use crate::rotary::Rotary;

/// `softmax(scale * q k^T + bias, hidden) v`.
///
/// # Shapes
/// - `query`: `[batch, heads, queries, head_dim]`
/// - `key`, `value`: `[batch, heads, keys, head_dim]`
/// - `bias`: broadcastable to `[batch, heads, queries, keys]`, added to the scores
/// - `hidden`: broadcastable to `[batch, heads, queries, keys]`, true at keys that a query may not see
/// - output: `[batch, heads, queries, head_dim]`
pub(crate) fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    scale: f64,
    bias: Option<Tensor<4>>,
    hidden: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    // scaling the queries is cheaper than scaling the scores, which have more elements
    let query = if scale == 1.0 { query } else { query * scale };
    let mut scores = query.matmul(key.swap_dims(2, 3)); // [b, h, q, k]
    if let Some(bias) = bias {
        scores = scores + bias;
    }
    if let Some(hidden) = hidden {
        let shape = scores.dims();
        scores = scores.mask_fill(hidden.expand(shape), MASKED_SCORE);
    }
    softmax(scores, 3).matmul(value)
}

/// The factor of attention scores, `head_dim^-0.5`.
pub(crate) fn score_scale(head_dim: usize) -> f64 {
    (head_dim as f64).powf(-0.5)
}

/// Splits the fused projection `[rows, time, heads * 3 * head_dim]`, which is laid out
/// `[head][q, k, v][head_dim]`, into rotated queries, rotated keys, and values,
/// `[rows, heads, time, head_dim]` each.
pub(crate) fn split_qkv(qkv: Tensor<3>, heads: usize, rotary: &Rotary) -> [Tensor<4>; 3] {
    let [rows, time, width] = qkv.dims();
    let head_dim = width / heads / 3;
    let qkv = qkv.reshape([rows, time, heads, 3 * head_dim]).swap_dims(1, 2); // [r, h, t, 3 * d]
    let part = |i: usize| qkv.clone().narrow(3, i * head_dim, head_dim);
    [rotary.apply(part(0)), rotary.apply(part(1)), part(2)]
}

/// `[batch, time, heads * head_dim] -> [batch, heads, time, head_dim]`
pub(crate) fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, time, width] = x.dims();
    x.reshape([batch, time, heads, width / heads]).swap_dims(1, 2)
}

/// `[batch, heads, time, head_dim] -> [batch, time, heads * head_dim]`
pub(crate) fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, time, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, time, heads * head_dim])
}
