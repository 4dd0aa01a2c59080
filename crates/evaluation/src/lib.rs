//! Zero-shot tasks: log-likelihoods of continuations, and the scores made of them.
//!
//! [`Scorer`] knows token ids only.

mod error;
mod logits;
mod rolling;
mod rows;
mod score;

pub use error::EvalError;
pub use rolling::rolling_windows;
pub use score::{Request, Scored, Scorer};
pub use zoo_text::{EOS, PAD};
