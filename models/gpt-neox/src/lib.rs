//! The vanilla transformer that the Block Transformer is compared with: GPT-NeoX, as in the Pythia
//! suite (Biderman et al., arXiv 2304.01373).

mod config;
mod decoding;
mod family;
mod model;
mod names;

use block_transformer_family::Registration;
use block_transformer_layers::neox::NeoXConfig;

pub use config::GptNeoXConfig;
pub use model::GptNeoX;

/// The family's entry in a registry.
pub const REGISTRATION: Registration = Registration {
    key: "hidden_size",
    keys: &[("", &[&["vocab_size", "max_position_embeddings"], NeoXConfig::KEYS])],
    presets: include_str!("../presets.toml"),
    weights: include_str!("../weights.toml"),
};
