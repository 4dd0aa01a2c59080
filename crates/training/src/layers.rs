//! Configuration from several sources: the preset, then a TOML file, then flags.

use std::path::Path;

use block_transformer_files::{nearest, plain_types, read_text_up_to};
use serde::{Deserialize, Serialize};
use toml::de::DeTable;
use toml::{Table, Value};

use crate::config::TrainConfig;
use crate::error::TrainError;

const DEFAULT_PRESET: &str = "small-block";

/// The format of configuration files. Files without a format are older.
const FORMAT: i64 = 1;

/// The largest configuration file in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Keys that a resumed run may change, because its results do not depend on them.
/// The number of devices changes results in rounding only, as another device does.
const FREE_ON_RESUME: [&str; 13] = [
    "out",
    "checkpoint_every",
    "keep",
    "log_every",
    "eval_every",
    "eval_tasks",
    "eval_limit",
    "eval_data",
    "overlap",
    "compare_every",
    "device",
    "devices",
    "recompute",
];

/// The first of them, which a deterministic run may change: the others decide which kernels run, and
/// thereby the rounding.
const FREE_IF_DETERMINISTIC: usize = 10;

impl TrainConfig {
    /// Starts from the defaults of the preset, overrides them by the file at `path`, and overrides
    /// the result by `flags`, a struct or map of the given keys. The preset is the one in the
    /// flags, otherwise the one in the file, otherwise `small-block`. A `model` table in the file
    /// replaces the model of the preset, unless the flags name a different preset from the file.
    ///
    /// # Errors
    /// When the file cannot be read or has a newer format, or a key is unknown or has a value of the
    /// wrong type.
    pub fn layered(path: Option<&Path>, flags: &impl Serialize) -> Result<Self, TrainError> {
        let flags = Table::try_from(flags)?;
        let (mut file, source) = path.map(read).transpose()?.unwrap_or_default();
        let named = |table: &Table| Some(table.get("preset")?.as_str()?.to_string());
        let preset = match (named(&flags), named(&file)) {
            (Some(flag), Some(other)) if flag != other => {
                file.remove("model");
                flag
            }
            (flag, file) => flag.or(file).unwrap_or_else(|| DEFAULT_PRESET.into()),
        };
        let of_preset = Self::from_preset(&preset).map_err(|error| match file.get("preset") {
            Some(Value::String(named)) if *named == preset => {
                source.error("preset", &error.to_string())
            }
            _ => error,
        });
        of_preset?.overridden(file, &source)?.overridden(flags, &KeySource::flags())
    }

    /// Returns whether the file at `path` gives the model of a run with the preset `preset`: it has a `model`
    /// table and names no other preset.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_model(path: &Path, preset: &str) -> Result<bool, TrainError> {
        let (file, _) = read(path)?;
        let other = file.get("preset").is_some_and(|named| named.as_str() != Some(preset));
        Ok(file.contains_key("model") && !other)
    }

    /// This configuration, with the values of `flags` in place of its own.
    ///
    /// # Errors
    /// When a key is unknown or has a value of the wrong type.
    pub fn with(self, flags: &impl Serialize) -> Result<Self, TrainError> {
        self.overridden(Table::try_from(flags)?, &KeySource::flags())
    }

    /// Reads the file that a run began with. Keys that an older file does not contain get the
    /// defaults of the preset in that file.
    ///
    /// # Errors
    /// When the file cannot be read or is not a configuration.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        Self::layered(Some(path), &Table::new())
    }

    /// The format and every key, as TOML that [`read`](Self::read) accepts.
    ///
    /// # Errors
    /// When a value cannot be written in TOML.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        Ok(format!("format = {FORMAT}\n{}", toml::to_string(self)?))
    }

    /// Checks that a run that began with `self` can be resumed with `now`.
    ///
    /// # Errors
    /// Returns an error that names the first key that differs, if the results depend on that key.
    pub fn check_resumes(&self, now: &Self) -> Result<(), TrainError> {
        let exact = self.deterministic || now.deterministic;
        let (mut then, mut now) = (Table::try_from(self)?, Table::try_from(now)?);
        let free = if exact { FREE_IF_DETERMINISTIC } else { FREE_ON_RESUME.len() };
        for key in &FREE_ON_RESUME[..free] {
            then.remove(*key);
            now.remove(*key);
        }
        check_same("", &then, &now)
    }

    fn overridden(mut self, over: Table, source: &KeySource) -> Result<Self, TrainError> {
        let mut base = Table::try_from(&self)?;
        for (key, value) in over {
            let Some(place) = base.get_mut(&key) else {
                let nearest = nearest(&key, base.keys().map(String::as_str)).unwrap_or_default();
                let reason = format!("unknown key; did you mean `{nearest}`?");
                return Err(source.error(&key, &reason));
            };
            if key == "model"
                && let Some((path, value)) = not_finite(&value)
            {
                let reason = format!("{value} is not a finite number");
                return Err(source.error(&format!("{key}{path}"), &reason));
            }
            *place = value.clone();
            // after each key, so that an error can name the key
            self = Self::deserialize(base.clone()).map_err(|error| {
                if let Some(allowed) = allowed(&key) {
                    return source.error(&key, &format!("{value}: must be {allowed}"));
                }
                let reason = &plain_types(error.message());
                // an error about a key inside a table starts with its path
                match reason.split_once(": ") {
                    Some((path, reason)) if at(&value, path).is_some() => {
                        source.error(&format!("{key}.{path}"), reason)
                    }
                    _ => source.error(&key, reason),
                }
            })?;
        }
        Ok(self)
    }
}

/// The origin of keys: a file with its text, or the flags, which have no text.
#[derive(Default)]
struct KeySource {
    origin: String,
    text: String,
}

impl KeySource {
    fn flags() -> Self {
        Self { origin: "flags".into(), text: String::new() }
    }

    /// The error `reason` about the key with the path `key`, with the key's line.
    fn error(&self, key: &str, reason: &str) -> TrainError {
        let line = self.line(key).map_or_else(String::new, |line| format!(":{line}"));
        TrainError::Configuration {
            origin: format!("{}{line}", self.origin),
            reason: format!("{key}: {reason}"),
        }
    }

    /// The line of the last part of the path `key` that the text has.
    fn line(&self, key: &str) -> Option<usize> {
        let root = DeTable::parse(&self.text).ok()?;
        let (mut table, mut start) = (root.get_ref(), None);
        for part in key.split('.') {
            let Some((key, value)) = table.iter().find(|(key, _)| **key.get_ref() == *part) else {
                break;
            };
            start = Some(key.span().start);
            let Some(inner) = value.get_ref().as_table() else { break };
            table = inner;
        }
        Some(self.text[..start?].matches('\n').count() + 1)
    }
}

/// The values of the keys about which the messages of serde would say little.
fn allowed(key: &str) -> Option<&'static str> {
    Some(match key {
        "tokenizer" => {
            "\"bytes\", { bpe = N } to train a BPE with N ids, or { file = \"PATH\" } of a tokenizer.json"
        }
        "precision" => "\"f32\" or \"bf16\"",
        "out" | "eval_data" => "the path of a folder, in quotes",
        "eval_tasks" => "a list of names in quotes",
        "preset" | "corpus" => "a name in quotes",
        "mixture" => {
            "a list of prepared folders with weights, such as [\"books=0.7\", \"code=0.3\"]"
        }
        "optimizer" => "\"adamw\" or \"muon\"",
        "recompute" | "deterministic" => "true or false",
        "windows" | "validation" => "\"documents\" or \"contiguous\"",
        _ => return None,
    })
}

/// A number inside `value` that is infinite or not a number, with its path. JSON, in which a model is
/// checked, has no such numbers.
fn not_finite(value: &Value) -> Option<(String, f64)> {
    match value {
        Value::Float(number) if !number.is_finite() => Some((String::new(), *number)),
        Value::Table(table) => table.iter().find_map(|(key, value)| {
            let (path, number) = not_finite(value)?;
            Some((format!(".{key}{path}"), number))
        }),
        _ => None,
    }
}

/// The value at the path `path` inside `value`.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, part| value.get(part))
}

fn check_same(path: &str, then: &Table, now: &Table) -> Result<(), TrainError> {
    let keys = then.keys().chain(now.keys().filter(|key| !then.contains_key(*key)));
    for key in keys {
        let at = format!("{path}{key}");
        match (then.get(key), now.get(key)) {
            (Some(Value::Table(then)), Some(Value::Table(now))) => {
                check_same(&format!("{at}."), then, now)?;
            }
            (then, now) if then != now => {
                let shown = |value: Option<&Value>| {
                    value.map_or_else(|| "not set".into(), ToString::to_string)
                };
                return Err(TrainError::Changed { key: at, then: shown(then), now: shown(now) });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads a configuration file and checks its format.
fn read(path: &Path) -> Result<(Table, KeySource), TrainError> {
    let text = read_text_up_to(path, MAX_BYTES)?;
    let source = KeySource { origin: path.display().to_string(), text };
    let table = source.text.parse::<Table>();
    let mut table = table.map_err(|e| TrainError::Configuration {
        origin: source.origin.clone(),
        reason: e.to_string().trim().into(),
    })?;
    match table.remove("format") {
        None | Some(Value::Integer(1..=FORMAT)) => Ok((table, source)),
        Some(Value::Integer(newer)) if newer > FORMAT => {
            let reason = format!(
                "{newer} is newer than the formats that this program knows (up to {FORMAT}); use a \
                 newer version of the program"
            );
            Err(source.error("format", &reason))
        }
        Some(other) => Err(source.error("format", &format!("{other} is not a format"))),
    }
}

#[cfg(test)]
mod tests {
    use block_transformer_cost::OptimizerKind;
    use block_transformer_datasets::WindowKind;
    use block_transformer_device::DeviceName;

    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_file_of_gigabytes_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::File::create(&path).unwrap().set_len(8 << 30).unwrap();
        let error = TrainConfig::read(&path).unwrap_err();
        let TrainError::File(error) = error else { panic!("{error}") };
        assert!(error.source.to_string().contains("at most 4194304 are read"), "{error:?}");
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_the_preset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "preset = \"debug-block\"\nsteps = 7\nlr = 0.5\n").unwrap();
        let config = TrainConfig::layered(Some(&path), &BTreeMap::from([("steps", 9)])).unwrap();
        assert_eq!((config.preset.as_str(), config.steps, config.lr), ("debug-block", 9, 0.5));
        std::fs::write(&path, config.to_toml().unwrap()).unwrap();
        assert_eq!(TrainConfig::read(&path).unwrap(), config);
        // files that are older than the format have no format
        let old = config.to_toml().unwrap().replace("format = 1\n", "");
        std::fs::write(&path, old).unwrap();
        assert_eq!(TrainConfig::read(&path).unwrap(), config);
        let model = "[model]\nvocab_size = 9\nhidden_size = 32\nnum_attention_heads = ";
        let many = format!("{model}\"many\"\n");
        let infinite = format!("{model}2\nrotary_pct = nan\n");
        let misspelt = format!("{model}2\nnum_hidden_layer = 1\n");
        for (text, says) in [
            ("seed = 1\nstepz = 1", &["c.toml:2: stepz", "`steps`"][..]),
            ("\nsteps = \"x\"", &["c.toml:2: steps", "string \"x\", expected a whole number"]),
            ("seed = 1\npreset = \"debug-blok\"", &["c.toml:2: preset", "`debug-block`"]),
            ("precision = \"half\"", &["c.toml:1: precision: \"half\"", "\"f32\" or \"bf16\""]),
            ("\ntokenizer = 3", &["c.toml:2: tokenizer: 3", "\"bytes\"", "bpe = N"]),
            ("tokenizer = \"byte\"", &["c.toml:1: tokenizer: \"byte\"", "file = "]),
            ("mixture = [\"a\"]", &["c.toml:1: mixture: [\"a\"]", "books=0.7"]),
            ("out = 3", &["c.toml:1: out: 3", "folder"]),
            ("windows = \"blocks\"", &["c.toml:1: windows: \"blocks\"", "\"contiguous\""]),
            ("optimizer = \"sgd\"", &["c.toml:1: optimizer: \"sgd\"", "\"muon\""]),
            ("validation = 32", &["c.toml:1: validation: 32", "\"documents\""]),
            ("recompute = 1", &["c.toml:1: recompute: 1", "true or false"]),
            ("devices = \"flex\"", &["c.toml:1: devices", "string \"flex\", expected a list"]),
            ("preset = 3", &["c.toml:1: preset: 3", "a name in quotes"]),
            ("seed = 1\na = ", &["c.toml", "line 2"]),
            (&many, &["c.toml:4: model.num_attention_heads", "\"many\""]),
            ("[models]\nblock_length = 4", &["c.toml:1: models", "`model`"]),
            ("[model]\nblok_length = 4", &["c.toml:2: model.blok_length", "`block_length`"]),
            ("seed = 1\nmodel = 3", &["c.toml:2: model: 3 is not a table"]),
            (&infinite, &["c.toml:5: model.rotary_pct: NaN is not a finite number"]),
            (&misspelt, &["c.toml:5: model.num_hidden_layer: ", "`num_hidden_layers`"]),
            ("format = 2", &["c.toml:1: format", "2 is newer"]),
            ("format = \"new\"", &["c.toml:1: format", "\"new\""]),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = TrainConfig::read(&path).unwrap_err().to_string();
            assert!(says.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn adapters_and_muon_are_refused_together() {
        let lora = Some("4".parse().unwrap());
        let config = TrainConfig {
            optimizer: OptimizerKind::Muon,
            lora,
            from: "run".into(),
            ..TrainConfig::from_preset("debug-block").unwrap()
        };
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("optimizer = muon") && error.contains("`lora` 4"), "{error}");
        TrainConfig { lora: None, ..config }.check().unwrap();
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (key, value) in
            [("steps", 0), ("batch", 0), ("context", 6), ("context", 4), ("keep", 0)]
        {
            let flags = BTreeMap::from([(key, value)]);
            let config = TrainConfig::layered(None, &flags).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(&format!("{key} = {value}")), "{error}");
        }
        let then = TrainConfig::from_preset("debug-block").unwrap();
        let mut now = TrainConfig { keep: 9, ..then.clone() };
        then.check_resumes(&now).unwrap();
        let exact = |config: &TrainConfig| TrainConfig { deterministic: true, ..config.clone() };
        exact(&then).check_resumes(&exact(&now)).unwrap();
        now.device = DeviceName::Ndarray;
        then.check_resumes(&now).unwrap();
        let error = exact(&then).check_resumes(&exact(&now)).unwrap_err().to_string();
        assert!(error.contains("device is"), "{error}");
        let windows = TrainConfig { windows: WindowKind::Contiguous, ..then.clone() };
        let error = then.check_resumes(&windows).unwrap_err().to_string();
        assert!(error.contains("windows is \"contiguous\""), "{error}");
        now.lr *= 2.0;
        assert!(then.check_resumes(&now).unwrap_err().to_string().contains("lr is"));
    }
}
