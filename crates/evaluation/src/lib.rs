//! Zero-shot tasks: log-likelihoods of continuations, and the scores made of them, as in the
//! EleutherAI evaluation harness.
//!
//! [`Scorer`] knows token ids only; [`Task`] knows what a task asks, and [`evaluate()`] puts both
//! together.

mod encode;
mod error;
mod evaluate;
mod logits;
mod metrics;
mod python;
mod report;
mod rolling;
mod rows;
mod score;
mod tasks;

pub use block_transformer_text::{EOS, PAD};
pub use encode::{Prompt, encode};
pub use error::EvalError;
pub use evaluate::{Evaluation, Requests, check_tokenizer, conclude, evaluate, requests};
pub use metrics::{ItemScore, Metric, RESAMPLES, Score};
pub use report::{Report, Setting, Timed};
pub use rolling::rolling_windows;
pub use score::{Request, Scored, Scorer};
pub use tasks::{Item, Task};
