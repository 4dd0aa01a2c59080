//! Decoding: an engine for many sequences at once, sampling, stop strings and streaming text.
//!
//! [`Engine`] and [`generate()`] work on token ids, [`TextEngine`] and [`TextGenerator`] on text.
//! In an engine, sequences can be added and finish at any time, as in a server; the other two
//! continue a given list of prompts. The README of this crate gives the cost of a token.

mod adjustments;
mod choose;
mod engine;
mod error;
mod event;
mod generate;
mod graphs;
mod host_rows;
mod limits;
mod on_device;
mod options;
mod prefixes;
mod prompts;
mod runner;
mod sampler;
mod sampling;
mod scheduler;
mod speculation;
mod stop;
mod text;
mod text_engine;
mod weights;

pub use block_transformer_family::{PositionCounts, Work};
pub use block_transformer_layers::TokenLogProbs;
pub use block_transformer_text::{EOS, PAD};
pub use engine::Engine;
pub use error::GenerationError;
pub use event::{Event, Finish, SequenceId};
pub use generate::generate;
pub use limits::{Limits, Memory, Storage};
pub use options::Options;
pub use prefixes::PrefixCounts;
pub use prompts::{GPU_PREFILL_CHUNK, PREFILL_CHUNK};
pub use sampler::Sampler;
pub use sampling::Sampling;
pub use speculation::{NGrams, Speculate, SpeculationCounts};
pub use stop::StopFilter;
pub use text::{Completion, Completions, SAMPLE_TEMPERATURE, TextGenerator, sample_text};
pub use text_engine::{ChosenToken, TextEngine, TextEvent};
