//! Compares models with recorded outputs of the published implementation: embeddings, context
//! embeddings, logits, losses, every gradient, an optimizer's losses, and greedy generation.

mod case;
mod compare;
mod greedy;
mod training;

pub use case::{Case, ParityError, find_cases};
pub use compare::{Quantity, Report, compare};
