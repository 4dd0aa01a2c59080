//! Log-likelihoods of continuations.

mod alignment;
mod cached;
mod request;
mod rolling;
mod rows;
mod scorer;

pub use alignment::Alignment;
pub(crate) use request::BatchScores;
pub use request::{Request, Scored, Sum};
pub(crate) use rolling::rolling_window;
pub use rolling::rolling_windows;
pub use scorer::{BATCH_TOKENS, Scorer};
