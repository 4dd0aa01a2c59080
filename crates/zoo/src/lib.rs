//! Both model families behind one type, and the presets of the paper.

mod bf16;
mod config;
mod model;
mod presets;
mod step;

pub use block_transformer_gpt_neox as vanilla;
pub use block_transformer_model as block;
pub use config::{ConfigError, ModelConfig};
pub use model::{LanguageModel, TokenBatch, TokenLosses};
pub use presets::{Preset, PresetError, TrainDefaults, preset, presets};
