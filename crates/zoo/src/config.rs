//! A model of either family, described.

use block_transformer_gpt_neox::GptNeoXConfig;
use block_transformer_layers::PublishedNames;
use block_transformer_model::BlockTransformerConfig;
use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::LanguageModel;

/// Configuration of a [`LanguageModel`]; its JSON is that of the published configurations, and a
/// `block_decoder` key tells the families apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModelConfig {
    /// Block Transformer.
    Block(BlockTransformerConfig),
    /// Vanilla GPT-NeoX.
    Vanilla(GptNeoXConfig),
}

/// A configuration that describes no model.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct ConfigError {
    /// The file or preset it came from.
    pub origin: String,
    /// What is wrong, by key.
    pub reason: String,
}

impl ModelConfig {
    /// Reads and checks a configuration; `origin` names it in errors.
    ///
    /// # Errors
    /// When the JSON is malformed, a key is missing or unknown, or the sizes do not fit together.
    pub fn from_json(json: &str, origin: &str) -> Result<Self, ConfigError> {
        let error = |reason: String| ConfigError { origin: origin.to_string(), reason };
        let value: Value = serde_json::from_str(json).map_err(|e| error(e.to_string()))?;
        let config = if value.get("block_decoder").is_some() {
            BlockTransformerConfig::deserialize(&value).map(Self::Block)
        } else {
            GptNeoXConfig::deserialize(&value).map(Self::Vanilla)
        };
        let config = config.map_err(|e| error(e.to_string()))?;
        // flattened structs cannot refuse unknown keys themselves: what did not survive is unknown
        let kept = serde_json::to_value(&config).map_err(|e| error(e.to_string()))?;
        if let Some(key) = unknown_key(&value, &kept, "") {
            return Err(error(format!("{key}: unknown key")));
        }
        config.check().map_err(|e| error(e.reason))?;
        Ok(config)
    }

    /// The configuration as JSON that [`from_json`](Self::from_json) takes back.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// # Errors
    /// When the sizes do not fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let checked = match self {
            Self::Block(config) => config.check(),
            Self::Vanilla(config) => config.check(),
        };
        checked.map_err(|reason| ConfigError { origin: "model".into(), reason })
    }

    /// A model with weights from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> LanguageModel {
        match self {
            Self::Block(config) => LanguageModel::Block(config.init(seed, device)),
            Self::Vanilla(config) => LanguageModel::Vanilla(config.init(seed, device)),
        }
    }

    /// The same model over `vocab_size` ids.
    pub fn with_vocab(mut self, vocab_size: usize) -> Self {
        match &mut self {
            Self::Block(config) => config.vocab_size = vocab_size,
            Self::Vanilla(config) => config.vocab_size = vocab_size,
        }
        self
    }

    /// "block" or "vanilla".
    pub fn family(&self) -> &'static str {
        match self {
            Self::Block(_) => "block",
            Self::Vanilla(_) => "vanilla",
        }
    }

    /// Tokens a block; 1 for the vanilla family.
    pub fn block_length(&self) -> usize {
        match self {
            Self::Block(config) => config.block_length,
            Self::Vanilla(_) => 1,
        }
    }

    /// Rows of the token tables.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Block(config) => config.vocab_size,
            Self::Vanilla(config) => config.vocab_size,
        }
    }

    /// All parameters.
    pub fn num_params(&self) -> usize {
        match self {
            Self::Block(config) => config.num_params(),
            Self::Vanilla(config) => config.num_params(),
        }
    }

    /// Parameters outside token tables and LM head.
    pub fn num_params_non_embedding(&self) -> usize {
        match self {
            Self::Block(config) => config.num_params_non_embedding(),
            Self::Vanilla(config) => config.num_params_non_embedding(),
        }
    }

    /// Parameters in the matrices of linear layers; an LM head counts unless it is a token table.
    pub fn num_matrix_params(&self) -> usize {
        match self {
            Self::Block(config) => config.num_matrix_params(),
            Self::Vanilla(config) => config.num_matrix_params(),
        }
    }

    /// Bytes of the parameters with those matrices in `matrices`, and f32 elsewhere; see
    /// [`LanguageModel::with_bf16_matrices`].
    pub fn weight_bytes(&self, matrices: DType) -> u64 {
        let (all, in_matrices) = (self.num_params() as u64, self.num_matrix_params() as u64);
        (all - in_matrices) * DType::F32.size() as u64 + in_matrices * matrices.size() as u64
    }

    /// Bytes of keys and values one token of context takes, at `bytes` a number.
    pub fn kv_bytes_per_token(&self, bytes: usize) -> f64 {
        match self {
            Self::Block(config) => config.kv_bytes_per_token(bytes),
            Self::Vanilla(config) => config.kv_bytes_per_token(bytes),
        }
    }

    fn family_names(&self) -> &dyn PublishedNames {
        match self {
            Self::Block(config) => config,
            Self::Vanilla(config) => config,
        }
    }
}

/// The table of the family; paths are those of a [`LanguageModel`], which start with its variant.
impl PublishedNames for ModelConfig {
    fn published_names(&self, path: &str) -> Vec<String> {
        self.family_names().published_names(in_family(path))
    }

    fn conv_kernel(&self, path: &str) -> usize {
        self.family_names().conv_kernel(in_family(path))
    }

    fn unused(&self) -> Vec<(String, Vec<usize>)> {
        self.family_names().unused()
    }
}

fn in_family(path: &str) -> &str {
    path.strip_prefix("Block.").or(path.strip_prefix("Vanilla.")).unwrap_or(path)
}

fn unknown_key(given: &Value, kept: &Value, at: &str) -> Option<String> {
    given.as_object()?.iter().find_map(|(key, value)| {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match kept.get(key) {
            None if !value.is_null() => Some(path),
            None => None,
            Some(kept) => unknown_key(value, kept, &path),
        }
    })
}
