//! A cost model of decoding: FLOPs, bytes of weights, caches and activations, and the time they take
//! on a machine of known peaks (the roofline of Williams et al., 2009).
//!
//! The formulas follow what [`block_transformer_generation::Engine`] does; a test holds them against its counts.

mod cost;
mod machine;
mod phases;
mod published;
mod stack;
mod workload;

pub use cost::{Cost, Phase, Phases};
pub use machine::{Machine, MachineError, Number};
pub use phases::{Sizes, decode, prefill};
pub use published::{Published, published};
pub use workload::{Estimate, Lengths, LengthsError, estimate, largest_batch};
