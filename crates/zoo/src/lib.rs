//! Both model families behind one type, and the presets of the paper.

mod bf16;
mod config;
mod model;
mod presets;
mod step;

pub use block_transformer;
pub use config::{ConfigError, ModelConfig};
pub use gpt_neox;
pub use model::{LanguageModel, TokenBatch, TokenLosses};
pub use presets::{Preset, PresetError, TrainDefaults, preset, presets};
