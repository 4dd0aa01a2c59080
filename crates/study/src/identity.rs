//! Identities of runs and shapes.

use block_transformer_training::TrainConfig;
use block_transformer_zoo::{FamilyConfig, ModelConfig, Precision};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::StudyError;

/// Keys on which the result of a run does not depend.
const IGNORED: [&str; 12] = [
    "preset",
    "out",
    "device",
    "devices",
    "checkpoint_every",
    "keep",
    "log_every",
    "eval_every",
    "eval_tasks",
    "eval_limit",
    "eval_data",
    "recompute",
];
/// Keys whose defaults depend on the preset. All other keys count only if they differ from their default, so that
/// a new key changes no identity.
const OF_PRESET: [&str; 8] =
    ["steps", "batch", "context", "lr", "warmup", "validate_every", "model", "corpus"];
/// Hexadecimal digits of an identity.
const DIGITS: usize = 10;

/// The identity of a run. `from` is that of the run whose weights it begins with.
pub(crate) fn run_id(config: &TrainConfig, from: Option<&str>) -> Result<String, StudyError> {
    let (own, default) = (
        serde_json::to_value(config)?,
        serde_json::to_value(TrainConfig::from_preset(&config.preset)?)?,
    );
    let mut kept: Vec<(String, Value)> = Vec::new();
    for (key, value) in own.as_object().into_iter().flatten() {
        let is_default = default.get(key) == Some(value) && !OF_PRESET.contains(&key.as_str());
        if !is_default && !IGNORED.contains(&key.as_str()) {
            kept.push((key.clone(), value.clone()));
        }
    }
    if let Some(from) = from {
        kept.push(("from".into(), from.into()));
    }
    let hash = hash(&Value::Object(kept.into_iter().collect()));
    Ok(format!("{}-s{}-{hash}", sizes(&config.model), config.seed))
}

/// The identity of a model's shape in a precision. Speeds depend on it and not on weights.
pub(crate) fn shape_id(model: &ModelConfig, precision: Precision) -> Result<String, StudyError> {
    let value = (serde_json::to_value(model)?, precision.to_string());
    Ok(format!("shape-{}-{}", sizes(model), hash(&serde_json::to_value(value)?)))
}

/// The family and sizes of a model, such as `block-64x3+3-b4`.
fn sizes(model: &ModelConfig) -> String {
    let stacks = model.stacks();
    let (width, layers) = (stacks.context.width, stacks.context.layers);
    let token = stacks.token.map_or_else(String::new, |token| {
        format!("+{}-b{}", token.stack.layers, stacks.block_length)
    });
    format!("{}-{width}x{layers}{token}", model.family())
}

fn hash(value: &Value) -> String {
    let digest = Sha256::digest(canonical(value).as_bytes());
    format!("{digest:x}")[..DIGITS].to_string()
}

/// The value as JSON with sorted keys.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries =
                entries.iter().map(|(key, value)| format!("{key:?}:{}", canonical(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => {
            let values = values.iter().map(canonical).collect::<Vec<_>>();
            format!("[{}]", values.join(","))
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_transformer_device::DeviceName;

    #[test]
    fn an_identity_depends_on_what_changes_the_result() {
        let config = TrainConfig::from_preset("debug-block").unwrap();
        let id = |config: &TrainConfig| run_id(config, None).unwrap();
        let same = TrainConfig {
            out: "elsewhere".into(),
            device: DeviceName::Ndarray,
            checkpoint_every: 1,
            ..config.clone()
        };
        assert_eq!(id(&config), id(&same));
        assert!(id(&config).starts_with("block-64x2+2-b4-s0-"), "{}", id(&config));
        for other in [
            TrainConfig { seed: 1, ..config.clone() },
            TrainConfig { lr: 0.5, ..config.clone() },
            TrainConfig { clip: 0.5, ..config.clone() },
            TrainConfig { model: config.model.clone().with_vocab_size(64), ..config.clone() },
        ] {
            assert_ne!(id(&config), id(&other));
        }
        assert_ne!(id(&config), run_id(&config, Some("a")).unwrap());
    }
}
