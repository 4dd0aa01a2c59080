//! The smallest family: bigram models, which predict a token from the one before it.
//!
//! It is no part of any registry. Its tests show that the two traits are all that a family needs to
//! be trained, decoded, evaluated, imported and exported.

mod config;
mod decoding;
mod model;

pub use config::BigramConfig;
pub use model::Bigram;
