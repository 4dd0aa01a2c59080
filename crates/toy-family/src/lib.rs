//! The smallest family: bigram models, which predict a token from the token before it.
//!
//! It is not in any registry. Its tests show that the traits of `block-transformer-family` suffice to
//! train, decode, evaluate, import and export a family. Presets, checkpoints and commands also need
//! the registry in `block-transformer-zoo`.

mod config;
mod decoding;
mod model;

pub use config::BigramConfig;
pub use model::Bigram;
