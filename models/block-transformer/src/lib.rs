//! The Block Transformer (Ho et al., arXiv 2406.02657): an embedder turns each block of tokens into
//! a vector, a block decoder attends over those vectors, and a token decoder writes each block's
//! tokens with attention inside the block only.
//!
//! Letters in shape comments: `b` sequences, `n` blocks a sequence, `l` tokens a block, `e`
//! embedding vectors a block, `d` block-decoder width, `h` token-decoder width, `v` vocabulary.

mod check;
mod config;
mod decoding;
mod embedder;
mod model;
mod names;
mod size;
mod token_block;
mod token_decoder;

use block_transformer_family::Registration;
use block_transformer_layers::neox::NeoXConfig;
use block_transformer_layers::roberta::RobertaConfig;
use block_transformer_layers::t5::T5Config;

pub use config::{
    BlockTransformerConfig, EmbedderConfig, LookupConfig, NeoXTokenDecoderConfig, Projection,
    RobertaEmbedderConfig, Strategy, T5TokenDecoderConfig, TokenDecoderConfig,
};
pub use embedder::Embedder;
pub use model::{BlockCache, BlockTransformer};
pub use token_block::{TokenBlock, TokenCache};
pub use token_decoder::TokenDecoder;

/// The family's entry in a registry.
pub const REGISTRATION: Registration = Registration {
    key: "block_decoder",
    keys: &[
        (
            "",
            &[&[
                "vocab_size",
                "block_length",
                "max_position_embeddings",
                "embedder",
                "block_decoder",
                "token_decoder",
            ]],
        ),
        (
            "embedder",
            &[
                &["cls", "projection_method", "n_embedding_tokens", "n_cls_tokens"],
                RobertaConfig::KEYS,
            ],
        ),
        ("block_decoder", &[NeoXConfig::KEYS]),
        (
            "token_decoder",
            &[&["cls", "decoding_strategy", "expansion_ratio"], NeoXConfig::KEYS, T5Config::KEYS],
        ),
    ],
    presets: include_str!("../presets.toml"),
};
