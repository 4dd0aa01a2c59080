//! Layers that the model families share: rotary embedding, GPT-NeoX, T5 and RoBERTa parts, KV
//! caches.
//!
//! Every constructor takes an [`Init`], which names each parameter by its path. The initial value
//! depends only on the seed and this path, not on the order of access.

mod attention;
mod cache;
mod conv;
mod embedding;
mod gelu;
mod init;
mod invalid;
mod linear;
mod loss;
mod mask;
pub mod neox;
mod norm;
mod places;
mod positions;
mod products;
mod recompute;
pub mod roberta;
mod rotary;
mod scores;
pub mod t5;
mod total;

pub use cache::{KvCache, KvPart, StackCache};
pub use conv::BlockConv;
pub use embedding::embed;
pub use gelu::gelu;
pub use init::Init;
pub use invalid::InvalidConfig;
pub use linear::project;
pub use loss::{cross_entropy, linear_cross_entropy};
pub use mask::{AttentionMask, causal_by_block};
pub use places::Places;
pub use positions::Positions;
pub use recompute::{recompute_layers, watch_layers};
pub use rotary::Rotary;
pub use scores::{score_logits, score_targets, score_token_logits, score_tokens};
pub use total::total;

pub use block_transformer_kernels::{
    AdamWStep, Draw, Draws, Indices, InstructionSet, InvalidInstructionSet, Report, TargetScore,
    TokenLogProbs, adamw, batch_invariant_rows, choose, chooses, has_adamw, has_graphs,
    instruction_set, int_tensor, is_attention_batch_invariant, is_cubecl, is_packed, max_of, pack,
    quantize, refresh_ints, square_sum,
};

/// Replaces each logit `x` by `e^((x - max) * scale)`, the softmax weight of the logit before
/// normalization. `max` is the largest logit, and `scale` is the inverse of the temperature. A NaN
/// stays a NaN.
pub fn softmax_weights(logits: &mut [f32], max: f32, scale: f32) {
    block_transformer_kernels::exp_differences(logits, max, scale);
}
