//! Reading and writing model configurations.

use block_transformer_family::{Family, FamilyConfig, InvalidConfig};
use burn::tensor::Device;
use serde_json::Value;

use crate::families::{LanguageModel, ModelConfig, REGISTRATIONS};
use crate::nearest::nearest;

/// A configuration that does not describe a model.
#[derive(Debug, thiserror::Error)]
#[error("{origin} describes no model")]
pub struct ConfigError {
    /// The file or preset that it came from.
    pub origin: String,
    /// The mistake in it.
    #[source]
    pub problem: ConfigProblem,
}

/// A mistake in a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    /// The text is not JSON.
    #[error("the text is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// The table belongs to no family.
    #[error("one of the keys {keys} is needed to identify the family")]
    NoFamily {
        /// The keys that identify the families.
        keys: String,
    },
    /// The family's tables have no such key.
    #[error("{key}: unknown key; did you mean `{nearest}`?")]
    UnknownKey {
        /// The key with its path.
        key: String,
        /// The most similar known key.
        nearest: String,
    },
    /// The key belongs to another kind of embedder or token decoder.
    #[error("{key}: the key does not apply to this `cls`")]
    UnusedKey {
        /// The key with its path.
        key: String,
    },
    /// A key is missing, or its value has the wrong type.
    #[error(transparent)]
    Value(serde_json::Error),
    /// The sizes do not fit together.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
}

impl ModelConfig {
    /// Reads and checks a configuration; `origin` names it in errors.
    ///
    /// # Errors
    /// When the text is not JSON, a key is missing or unknown, or the sizes do not fit together.
    pub fn from_json(json: &str, origin: &str) -> Result<Self, ConfigError> {
        let config = serde_json::from_str(json).map_err(ConfigProblem::Json).and_then(read);
        config.map_err(|problem| ConfigError { origin: origin.into(), problem })
    }

    /// Reads and checks a configuration table; `origin` names it in errors.
    ///
    /// # Errors
    /// When a key is missing or unknown, or the sizes do not fit together.
    pub fn from_value(table: Value, origin: &str) -> Result<Self, ConfigError> {
        read(table).map_err(|problem| ConfigError { origin: origin.into(), problem })
    }

    /// The configuration as a table that [`from_value`](Self::from_value) accepts.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("the configuration holds finite numbers and text keys")
    }

    /// The configuration as JSON that [`from_json`](Self::from_json) accepts.
    pub fn to_json(&self) -> String {
        format!("{:#}", self.to_value())
    }

    /// A model with initial weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> LanguageModel {
        Family::init(self, seed, device)
    }
}

fn read(table: Value) -> Result<ModelConfig, ConfigProblem> {
    let Some(family) = REGISTRATIONS.iter().find(|family| table.get(family.key).is_some()) else {
        let keys = REGISTRATIONS.iter().map(|family| format!("`{}`", family.key));
        return Err(ConfigProblem::NoFamily { keys: keys.collect::<Vec<_>>().join(" and ") });
    };
    for (path, known) in family.keys {
        let known = || known.iter().flat_map(|keys| keys.iter().copied());
        let inner = if path.is_empty() { Some(&table) } else { table.get(path) };
        let Some(inner) = inner.and_then(Value::as_object) else { continue };
        if let Some(key) = inner.keys().find(|key| !known().any(|known| known == key.as_str())) {
            let nearest = nearest(key, known()).unwrap_or_default().to_string();
            let key = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            return Err(ConfigProblem::UnknownKey { key, nearest });
        }
    }
    let config =
        ModelConfig::deserialize_family(family.key, &table).map_err(ConfigProblem::Value)?;
    // a key of another `cls` is known, but is not in the parsed configuration
    if let Some(key) = lost_key(&table, &config.to_value(), "") {
        return Err(ConfigProblem::UnusedKey { key });
    }
    config.check()?;
    Ok(config)
}

/// Returns the path of a key that is in `given` but not in `kept`.
fn lost_key(given: &Value, kept: &Value, at: &str) -> Option<String> {
    given.as_object()?.iter().find_map(|(key, value)| {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match kept.get(key) {
            None if !value.is_null() => Some(path),
            None => None,
            Some(kept) => lost_key(value, kept, &path),
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::presets::{preset, presets};

    use super::*;

    fn refused(table: Value) -> ConfigProblem {
        ModelConfig::from_value(table, "mine").unwrap_err().problem
    }

    #[test]
    fn tables_survive_a_round_trip() {
        for preset in presets() {
            let json = preset.model.to_json();
            assert_eq!(ModelConfig::from_json(&json, "test").unwrap(), preset.model);
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_name() {
        let table = preset("debug-block").unwrap().model.to_value();
        for (path, key, expected) in [
            ("", "block_lenght", "block_length"),
            ("block_decoder", "hiden_size", "hidden_size"),
            ("block_decoder", "intermediate_sizes", "intermediate_size"),
            ("token_decoder", "expansion_ration", "expansion_ratio"),
            ("embedder", "n_embeding_tokens", "n_embedding_tokens"),
        ] {
            let mut table = table.clone();
            let inner = if path.is_empty() { &mut table } else { &mut table[path] };
            inner[key] = 4.into();
            let error = refused(table);
            let ConfigProblem::UnknownKey { nearest, key: found } = &error else {
                panic!("{error}");
            };
            assert_eq!(nearest, expected);
            assert!(found.ends_with(key) && found.starts_with(path), "{found}");
        }
    }

    #[test]
    fn other_errors_say_what_is_wrong() {
        let table = preset("debug-block").unwrap().model.to_value();
        let mut other = table.clone();
        other["embedder"]["n_cls_tokens"] = 2.into();
        assert!(
            matches!(refused(other), ConfigProblem::UnusedKey { key } if key == "embedder.n_cls_tokens")
        );
        let mut other = table.clone();
        other.as_object_mut().unwrap().remove("vocab_size");
        let error = refused(other);
        assert!(error.to_string().contains("vocab_size"), "{error}");
        let mut other = table;
        other["block_decoder"]["num_attention_heads"] = 5.into();
        assert!(matches!(refused(other), ConfigProblem::Invalid(error)
                if error.key == "block_decoder.num_attention_heads"));
        assert!(matches!(refused(Value::Null), ConfigProblem::NoFamily { .. }));
        assert!(matches!(
            ModelConfig::from_json("{", "mine").unwrap_err().problem,
            ConfigProblem::Json(_)
        ));
    }
}
