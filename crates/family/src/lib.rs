//! The contract of a model family.
//!
//! A family implements [`FamilyConfig`] for its configuration and [`Family`] for its model. Training,
//! generation, evaluation, the cost model, and weight import and export use these traits only.

mod batch;
mod config;
mod decoding;
mod lora;
mod model;
mod module_path;
mod names;
mod precision;
mod speculative;
mod stacks;

pub use batch::{Continuations, PaddingMask, TokenBatch, TokenLosses};
pub use block_transformer_layers::InvalidConfig;
pub use config::{BLOCK_FAMILY, FamilyConfig, Registration, check_ids};
pub use decoding::{BlockDecoding, CacheRoom, PositionCounts, Work};
pub use lora::{Factors, Lora, LoraPart, ParseLoraError, lora_factors, with_lora_factors};
pub use model::Family;
pub use module_path::{LinearLayer, ModulePath};
pub use names::{PublishedNames, rename};
pub use precision::{CacheFormat, FloatFormat, MatrixFormat, ParsePrecisionError, Precision};
pub use speculative::{BlockRow, SpeculativeDecoding};
pub use stacks::{Conditioning, EmbedderShape, StackShape, Stacks, TokenDecoderShape};
