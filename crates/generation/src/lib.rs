//! Decoding: sampling, stop conditions, streaming text.
//!
//! [`generate`] knows token ids only; [`TextGenerator`] puts text on top of it.

mod block;
mod error;
mod generate;
mod options;
mod rows;
mod sampling;
mod stop;
mod text;
mod vanilla;

pub use error::GenerationError;
pub use generate::generate;
pub use options::Options;
pub use sampling::{Sampler, Sampling};
pub use stop::StopFilter;
pub use text::{Completion, SAMPLE_TEMPERATURE, TextGenerator, sample_text};
pub use zoo_text::{EOS, PAD};
