//! Evaluation of language models: tasks, texts, and the loss in long documents.
//!
//! - [`Scorer`] computes log-likelihoods of token ids under a model of any family.
//! - [`tasks`] scores models on tasks of the EleutherAI evaluation harness, with its prompts and
//!   metrics.
//! - [`documents`] measures the loss by position in long documents (the paper's PG19 figure), and
//!   the perplexity of whole documents.
//! - [`needle`] hides a number in a long text, and asks for it.
//! - [`statistics`] computes the standard errors for both.

pub mod documents;
pub mod needle;
pub mod statistics;
pub mod tasks;

mod error;
mod folder;
mod score;
mod table;

pub use block_transformer_layers::TokenLogProbs;
pub use block_transformer_text::{EOS, PAD};
pub use error::EvalError;
pub use score::{Alignment, BATCH_TOKENS, Request, Scored, Scorer, Sum, rolling_windows};
