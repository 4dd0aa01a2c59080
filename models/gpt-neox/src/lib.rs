//! The vanilla transformer the Block Transformer is measured against: GPT-NeoX, as in the Pythia
//! suite (Biderman et al., arXiv 2304.01373).

mod config;
mod decoding;
mod model;
mod names;

pub use config::GptNeoXConfig;
pub use model::{GptNeoX, GptNeoXCache};

/// The family's presets, TOML.
pub const PRESETS: &str = include_str!("../presets.toml");
