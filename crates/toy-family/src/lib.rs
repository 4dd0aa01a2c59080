//! The smallest family: bigram models, which predict a token from the token before it.
//!
//! It is not in any registry. Its tests show that a family needs only the two traits to be trained,
//! decoded, evaluated, imported and exported.

mod config;
mod decoding;
mod model;

pub use config::BigramConfig;
pub use model::Bigram;
