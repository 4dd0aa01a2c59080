//! Layers the model families share: rotary embedding, GPT-NeoX, T5 and RoBERTa pieces, KV caches.
//!
//! Every constructor takes an [`Init`], which names each parameter by its path and draws its first
//! value from the seed and that path alone, so weights do not depend on the order of access.

mod attention;
mod cache;
mod conv;
mod gelu;
mod init;
mod linear;
mod loss;
mod mask;
mod names;
pub mod neox;
pub mod roberta;
mod rotary;
pub mod t5;

pub use attention::{attend, merge_heads, split_heads};
pub use cache::{KvCache, Positions};
pub use conv::BlockConv;
pub use gelu::gelu;
pub use init::Init;
pub use linear::project;
pub use loss::{cross_entropy, linear_cross_entropy};
pub use mask::{AttentionMask, causal_by_block};
pub use names::{PublishedNames, rename};
pub use rotary::Rotary;
