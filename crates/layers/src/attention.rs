//! Scaled dot-product attention.

use burn::tensor::{Tensor, activation::softmax};

use crate::AttentionMask;
use crate::mask::MASKED_SCORE;

/// `softmax(scale * q k^T + bias, masked) v`.
///
/// # Shapes
/// - `query`: `[batch, heads, queries, head_dim]`
/// - `key`, `value`: `[batch, heads, keys, head_dim]`
/// - `bias`: broadcastable to `[batch, heads, queries, keys]`, added to the scores
/// - output: `[batch, heads, queries, head_dim]`
pub fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    scale: f64,
    bias: Option<Tensor<4>>,
    mask: &AttentionMask,
) -> Tensor<4> {
    // scaling the queries touches fewer numbers than scaling the scores
    let query = if scale == 1.0 { query } else { query * scale };
    let mut scores = query.matmul(key.swap_dims(2, 3)); // [b, h, q, k]
    if let Some(bias) = bias {
        scores = scores + bias;
    }
    if let Some(mask) = mask.hidden(&scores.device()) {
        let shape = scores.dims();
        scores = scores.mask_fill(mask.clone().expand(shape), MASKED_SCORE);
    }
    softmax(scores, 3).matmul(value)
}

/// `[batch, time, heads * head_dim] -> [batch, heads, time, head_dim]`
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, time, width] = x.dims();
    x.reshape([batch, time, heads, width / heads]).swap_dims(1, 2)
}

/// `[batch, heads, time, head_dim] -> [batch, time, heads * head_dim]`
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, time, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, time, heads * head_dim])
}
