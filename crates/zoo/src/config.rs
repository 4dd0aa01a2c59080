//! Reading and writing model configurations.

use block_transformer_family::{Family, FamilyConfig, InvalidConfig};
use block_transformer_files::{nearest, plain_types};
use block_transformer_layers::neox::RopeScaling;
use burn::tensor::Device;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

use crate::families::{LanguageModel, ModelConfig, REGISTRATIONS};

const VALID_JSON: &str = "the configuration holds finite numbers and text keys";

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
    /// The configuration is not a table.
    #[error("{found} is not a table; a table with one of the keys {keys} is needed")]
    NoTable {
        /// The value.
        found: Value,
        /// The keys that identify the families.
        keys: String,
    },
    /// The table has none of the keys that identify the families.
    #[error("one of the keys {0} is needed to identify the family")]
    NoFamily(String),
    /// A key is missing.
    #[error(transparent)]
    Missing(serde_json::Error),
    /// A key is unknown, its value has the wrong type, or the sizes do not fit together.
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

    /// The configuration as JSON that [`from_json`](Self::from_json) accepts.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect(VALID_JSON)
    }

    fn to_value(&self) -> Value {
        serde_json::to_value(self).expect(VALID_JSON)
    }

    /// The configuration with other rotary positions: of the block decoder, or of a vanilla model. Set it before
    /// weights are loaded, for example to evaluate a model on a longer context than that of its training.
    #[must_use]
    pub fn with_rope_scaling(mut self, scaling: Option<RopeScaling>) -> Self {
        match &mut self {
            Self::Block(config) => config.block_decoder.rope_scaling = scaling,
            Self::Vanilla(config) => config.stack.rope_scaling = scaling,
        }
        self
    }

    /// A model with initial weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> LanguageModel {
        Family::init(self, seed, device)
    }
}

/// Refuses the same tables as [`ModelConfig::from_json`].
impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn read(table: Value) -> Result<ModelConfig, ConfigProblem> {
    let Some(family) = REGISTRATIONS.iter().find(|family| table.get(family.key).is_some()) else {
        return Err(without_family(&table));
    };
    for (path, known) in family.keys {
        let known = || known.iter().flat_map(|keys| keys.iter().copied());
        let inner = if path.is_empty() { Some(&table) } else { table.get(path) };
        let Some(inner) = inner.and_then(Value::as_object) else { continue };
        if let Some(key) = inner.keys().find(|key| !known().any(|known| known == key.as_str())) {
            let nearest = nearest(key, known()).unwrap_or_default();
            let key = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let reason = format!("unknown key; did you mean `{nearest}`?");
            return Err(InvalidConfig::new(key, reason).into());
        }
    }
    let parse = |table: &Value| ModelConfig::deserialize_family(family.key, table);
    let config = parse(&table).map_err(|error| match wrong_value(&table, parse, &error) {
        Some(key) => InvalidConfig::new(key, plain_types(&error.to_string())).into(),
        None => ConfigProblem::Missing(error),
    })?;
    // a key of another `cls` is known, but is not in the parsed configuration
    if let Some(key) = lost_key(&table, &config.to_value(), "") {
        return Err(InvalidConfig::new(key, "the key does not apply to this `cls`").into());
    }
    config.check()?;
    Ok(config)
}

/// The error of a table without the key of any family: a misspelt key, if possible a misspelt key of a
/// family, or that all are absent.
fn without_family(table: &Value) -> ConfigProblem {
    let families = || REGISTRATIONS.iter().map(|family| family.key);
    let keys: Vec<_> = families().map(|key| format!("`{key}`")).collect();
    let keys = keys.join(" and ");
    let Some(given) = table.as_object() else {
        return ConfigProblem::NoTable { found: table.clone(), keys };
    };
    let roots = REGISTRATIONS.iter().flat_map(|family| family.keys);
    let roots = roots.filter(|(path, _)| path.is_empty()).flat_map(|(_, keys)| keys.iter());
    let known: Vec<&str> = roots.flat_map(|keys| keys.iter().copied()).collect();
    let unknown = given.keys().filter(|key| !known.contains(&key.as_str()));
    let misspelt = unknown.filter_map(|key| Some((key, nearest(key, known.iter().copied())?)));
    // `false` comes first
    match misspelt.min_by_key(|(_, near)| families().all(|family| family != *near)) {
        Some((key, near)) => {
            InvalidConfig::new(key, format!("unknown key; did you mean `{near}`?")).into()
        }
        None => ConfigProblem::NoFamily(keys),
    }
}

/// Returns the path of the key whose value causes `error`. It replaces one value after the other by
/// another value of the same type until the error changes.
fn wrong_value(
    table: &Value,
    parse: impl Fn(&Value) -> Result<ModelConfig, serde_json::Error>,
    error: &serde_json::Error,
) -> Option<String> {
    fn pointers(value: &Value, at: &str) -> Vec<String> {
        value.as_object().map_or_else(
            || vec![at.to_string()],
            |table| table.iter().flat_map(|(k, v)| pointers(v, &format!("{at}/{k}"))).collect(),
        )
    }
    let error = error.to_string();
    let is_wrong = |pointer: &String| {
        let mut other = table.clone();
        let Some(value) = other.pointer_mut(pointer) else { return false };
        *value = match &*value {
            Value::String(name) if !error.contains(name) => return false,
            Value::String(_) => "".into(),
            Value::Bool(given) => (!given).into(),
            Value::Number(given) if given.is_f64() => (given.as_f64().unwrap_or(0.0) + 1.0).into(),
            given => u64::from(*given != 1).into(),
        };
        parse(&other).map_or_else(|other| other.to_string() != error, |_| true)
    };
    let pointer = pointers(table, "").into_iter().find(is_wrong)?;
    Some(pointer.trim_start_matches('/').replace('/', "."))
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

    fn refused(table: &Value) -> String {
        ModelConfig::from_json(&table.to_string(), "mine").unwrap_err().problem.to_string()
    }

    #[test]
    fn tables_survive_a_round_trip() {
        for preset in presets() {
            let json = preset.model.to_json();
            assert_eq!(ModelConfig::from_json(&json, "test").unwrap(), preset.model);
        }
    }

    #[test]
    fn errors_name_the_key_and_the_mistake() {
        let valid = preset("debug-block").unwrap().model.to_value();
        for (table, key, value, expected) in [
            ("", "block_lenght", Value::from(4), "unknown key; did you mean `block_length`?"),
            ("block_decoder", "hiden_size", 4.into(), "unknown key; did you mean `hidden_size`?"),
            ("token_decoder", "expansion_ration", 4.into(), "did you mean `expansion_ratio`?"),
            ("embedder", "n_embeding_tokens", 4.into(), "did you mean `n_embedding_tokens`?"),
            ("embedder", "n_cls_tokens", 2.into(), "the key does not apply to this `cls`"),
            ("", "block_length", "x".into(), "invalid type: string \"x\", expected a whole number"),
            ("block_decoder", "hidden_size", (-1).into(), "invalid value: integer `-1`"),
            ("block_decoder", "rotary_pct", true.into(), "invalid type: boolean `true`"),
            ("token_decoder", "cls", "t6".into(), "unknown variant `t6`"),
            ("", "embedder", Value::Null, "invalid type"),
            ("block_decoder", "num_attention_heads", 5.into(), "5 does not divide hidden_size"),
        ] {
            let mut other = valid.clone();
            let inner = if table.is_empty() { &mut other } else { &mut other[table] };
            inner[key] = value;
            let path = if table.is_empty() { key.into() } else { format!("{table}.{key}") };
            let error = refused(&other);
            let reason = error.strip_prefix(&format!("{path}: "));
            assert!(reason.is_some_and(|reason| reason.contains(expected)), "{path}: {error}");
        }
        let mut other = valid;
        other.as_object_mut().unwrap().remove("vocab_size");
        assert!(refused(&other).contains("vocab_size"), "{}", refused(&other));
        for table in [Value::Null, 3.into(), serde_json::json!({ "vocab_size": 9 })] {
            let error = refused(&table);
            assert!(error.contains("`block_decoder` and `hidden_size`"), "{error}");
            assert_eq!(error.contains("not a table"), !table.is_object(), "{error}");
        }
        let error = refused(&serde_json::json!({ "blok_length": 4 }));
        assert_eq!(error, "blok_length: unknown key; did you mean `block_length`?");
        for (key, misspelt) in [("block_decoder", "blok_decoder"), ("hidden_size", "hiden_size")] {
            let error = refused(&serde_json::json!({ "vocab_size": 9, misspelt: {} }));
            assert_eq!(error, format!("{misspelt}: unknown key; did you mean `{key}`?"));
        }
        let error = ModelConfig::from_json("{", "mine").unwrap_err();
        assert!(matches!(error.problem, ConfigProblem::Json(_)), "{error}");
    }
}
