//! Reading and writing model configurations.

use block_transformer_family::{Family, FamilyConfig};
use burn::tensor::Device;
use serde_json::Value;

use crate::families::{LanguageModel, ModelConfig};

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
        Self::from_value(serde_json::from_str(json).map_err(|e| error(e.to_string()))?, origin)
    }

    /// Reads and checks a configuration table; `origin` names it in errors.
    ///
    /// # Errors
    /// When a key is missing or unknown, or the sizes do not fit together.
    pub fn from_value(value: Value, origin: &str) -> Result<Self, ConfigError> {
        let error = |reason: String| ConfigError { origin: origin.to_string(), reason };
        let config = Self::deserialize_family(&value).unwrap_or_else(|| {
            let keys = Self::KEYS.join("` or `");
            Err(serde::de::Error::custom(format!("missing key `{keys}`, which tells the family")))
        });
        let config = config.map_err(|e| error(e.to_string()))?;
        // flattened structs cannot refuse unknown keys themselves: what did not survive is unknown
        let kept = serde_json::to_value(&config).map_err(|e| error(e.to_string()))?;
        if let Some(key) = unknown_key(&value, &kept, "") {
            return Err(error(format!("{key}: unknown key")));
        }
        config.check().map_err(|e| error(e.to_string()))?;
        Ok(config)
    }

    /// The configuration as JSON that [`from_json`](Self::from_json) takes back.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain numbers and texts")
    }

    /// A model with first weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> LanguageModel {
        Family::init(self, seed, device)
    }
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
