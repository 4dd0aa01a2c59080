//! The Block Transformer (Ho et al., arXiv 2406.02657). An embedder turns each block of tokens
//! into block embeddings, a block decoder attends over them and gives context embeddings, and a
//! token decoder decodes each block's tokens with attention inside the block only.
//!
//! Letters in shape comments: `b` sequences, `n` blocks per sequence, `l` tokens per block, `e`
//! embedding vectors per block, `d` width of the block decoder, `h` width of the token decoder,
//! `v` vocabulary.

mod check;
mod config;
mod decoding;
mod embedder;
mod family;
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
    RobertaEmbedderConfig, T5TokenDecoderConfig, TokenDecoderConfig,
};
pub use embedder::Embedder;
pub use model::BlockTransformer;
pub use token_block::TokenBlock;
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
    weights: include_str!("../weights.toml"),
};
