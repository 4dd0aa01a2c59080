//! Benchmarks of decoding, evaluation and training.
//!
//! [`DecodeBench`] and [`SequenceBench`] measure several models in turn. The peaks of the device
//! are measured before and after each measurement, and a [`BenchReport`] compares every speed with
//! the limit that these peaks set. [`LoadReport`] measures a server over HTTP.

mod candidate;
mod decode;
mod engine;
mod error;
mod figures;
mod format;
mod load;
mod memory;
mod output;
mod prompt;
mod report;
mod sequences;
mod tokenizing;

pub use candidate::Candidate;
pub use decode::{Batches, DecodeBench};
pub use error::BenchError;
pub use figures::{draw, ratios};
pub use format::{number, size, table};
pub use load::{
    Bounds, Endpoint, Load, LoadReport, LoadRow, LoadTest, Paired, Percentiles, ServedCard, Side,
    draw_load, paired_table,
};
pub use report::{BenchReport, BenchRow, Spread};
pub use sequences::{SequenceBench, StepKind, training_seconds};
pub use tokenizing::{TokenizingBench, TokenizingRow, tokenizing_table};
