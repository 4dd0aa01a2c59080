//! The Block Transformer (Ho et al., arXiv 2406.02657): an embedder turns each block of tokens into
//! a vector, a block decoder attends over those vectors, and a token decoder writes each block's
//! tokens with attention inside the block only.
//!
//! Letters in shape comments: `b` sequences, `n` blocks a sequence, `l` tokens a block, `e`
//! embedding vectors a block, `d` block-decoder width, `h` token-decoder width, `v` vocabulary.

mod config;
mod decoding;
mod embedder;
mod model;
mod names;
mod token_block;
mod token_decoder;

pub use config::{
    BlockTransformerConfig, EmbedderConfig, LookupConfig, NeoXTokenDecoderConfig, Projection,
    RobertaEmbedderConfig, Strategy, T5TokenDecoderConfig, TokenDecoderConfig,
};
pub use embedder::Embedder;
pub use model::{BlockCache, BlockTransformer};
pub use token_block::{TokenBlock, TokenCache};
pub use token_decoder::TokenDecoder;

/// The family's presets, TOML.
pub const PRESETS: &str = include_str!("../presets.toml");
