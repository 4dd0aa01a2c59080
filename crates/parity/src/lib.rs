//! Compares models with recorded outputs of the published implementation: embeddings, context
//! embeddings, logits, losses, every gradient, losses during optimizer steps, and greedy
//! generation.

mod case;
mod compare;
mod error;
mod greedy;
mod quantity;
mod tolerance;
mod training;

pub use case::{Case, find_cases};
pub use compare::{compare, compare_products};
pub use error::ParityError;
pub use greedy::{greedy_engine, greedy_ids};
pub use quantity::Quantity;
pub use tolerance::Products;
