//! A cost model of decoding and training: FLOPs, bytes of weights, caches and activations, kernel
//! launches, and the time they take on a machine with known peaks (the roofline model of Williams et
//! al., 2009).
//!
//! Data-parallel steps on several ranks add the time of all-reduces.
//!
//! The formulas follow the steps of [`block_transformer_generation::Engine`]; a test compares them
//! with the operations that the engine counts.

mod all_reduce;
mod cost;
mod data_parallel;
mod held;
mod launches;
mod machine;
mod memory;
mod mfu;
mod optimizer;
mod peaks;
mod phases;
mod plan;
mod prediction;
mod published;
mod sizes;
mod stack;
mod training;
mod workload;

pub use all_reduce::{AllReduce, Network, NetworkError};
pub use cost::{Cost, Phases};
pub use data_parallel::{RankCompute, RankStep, Scaling, StepTime, bucket_bytes, late_params};
pub use held::Holding;
pub use launches::{decode_launches, prefill_launches, step_launches};
pub use machine::{Machine, MachineError};
pub use memory::{TrainingMemory, TrainingShape, largest};
pub use mfu::{Mfu, training_flops};
pub use optimizer::OptimizerKind;
pub use peaks::Peaks;
pub use phases::{decode, prefill};
pub use plan::{Plan, cache_bytes_per_context_token, largest_batch};
pub use prediction::Prediction;
pub use published::{Published, published};
pub use sizes::Sizes;
pub use training::{TrainingPrediction, TrainingStep};
pub use workload::{Lengths, LengthsError, Workload};
