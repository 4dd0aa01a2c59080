//! The model families behind one type, the presets of the paper, and published weights.

mod config;
mod families;
mod presets;
mod published;

pub use block_transformer_family as family;
pub use block_transformer_family::{
    BLOCK_FAMILY, Family, FamilyConfig, PaddingMask, Precision, PublishedNames, TokenBatch,
    TokenLosses,
};
pub use block_transformer_gpt_neox as vanilla;
pub use block_transformer_model as block;
pub use config::{ConfigError, ConfigProblem};
pub use families::{LanguageModel, ModelConfig};
pub use presets::{Preset, PresetError, TrainDefaults, preset, presets};
pub use published::{PublishedWeights, published_weights};
