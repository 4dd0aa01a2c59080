//! Decoding: an engine for many sequences at once, sampling, stop conditions, streaming text.
//!
//! [`Engine`] and [`generate`] know token ids only; [`TextGenerator`] puts text on top of them. The
//! README says what a token costs.

mod choose;
mod decoder;
mod engine;
mod error;
mod generate;
mod limits;
mod options;
mod prompts;
mod runner;
mod sampling;
mod scheduler;
mod stop;
mod text;

pub use block_transformer_text::{EOS, PAD};
pub use block_transformer_zoo::family::{PositionCounts, Work};
pub use engine::{Engine, Event, Finish, SequenceId};
pub use error::GenerationError;
pub use generate::generate;
pub use limits::{Limits, Memory};
pub use options::Options;
pub use prompts::CHUNK;
pub use sampling::{Sampler, Sampling};
pub use stop::StopFilter;
pub use text::{Completion, Piece, SAMPLE_TEMPERATURE, TextGenerator, sample_text};
