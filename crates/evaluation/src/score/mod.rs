//! Log-likelihoods of continuations.

mod cached;
mod request;
mod rolling;
mod rows;
mod scorer;

pub use request::{Request, Scored};
pub use rolling::rolling_windows;
pub use scorer::{BATCH_TOKENS, Scorer};
