//! Configuration from several sources: the preset, then a TOML file, then flags.

use std::path::Path;

use block_transformer_files::FileError;
use block_transformer_zoo::nearest;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::TrainConfig;
use crate::error::TrainError;

const DEFAULT_PRESET: &str = "small-block";

/// Keys that a resumed run may change, because its results do not depend on them.
const FREE_ON_RESUME: [&str; 5] = ["out", "device", "checkpoint_every", "keep", "log_every"];

impl TrainConfig {
    /// Starts from the defaults of the preset, overrides them by the file at `path`, and overrides
    /// the result by `flags`, a struct or map of the given keys. The preset is the one in the
    /// flags, otherwise the one in the file, otherwise `small-block`. A `model` table in the file
    /// replaces the model of the preset, unless the flags name a different preset from the file.
    ///
    /// # Errors
    /// When the file cannot be read, or a key is unknown or has a value of the wrong type.
    pub fn layered(path: Option<&Path>, flags: &impl Serialize) -> Result<Self, TrainError> {
        let flags = Table::try_from(flags)?;
        let mut file = path.map(read_table).transpose()?.unwrap_or_default();
        let named = |table: &Table| Some(table.get("preset")?.as_str()?.to_string());
        let preset = match (named(&flags), named(&file)) {
            (Some(flag), Some(other)) if flag != other => {
                file.remove("model");
                flag
            }
            (flag, file) => flag.or(file).unwrap_or_else(|| DEFAULT_PRESET.into()),
        };
        let origin = path.map(|path| path.display().to_string()).unwrap_or_default();
        Self::from_preset(&preset)?.overridden(file, &origin)?.overridden(flags, "flags")
    }

    /// This configuration, with the values of `flags` in place of its own.
    ///
    /// # Errors
    /// When a key is unknown or has a value of the wrong type.
    pub fn with(self, flags: &impl Serialize) -> Result<Self, TrainError> {
        self.overridden(Table::try_from(flags)?, "flags")
    }

    /// Reads the file that a run began with. Keys that are missing, because the file is older than
    /// they are, get the defaults of its preset.
    ///
    /// # Errors
    /// When the file cannot be read or is not a configuration.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        Self::layered(Some(path), &Table::new())
    }

    /// Every key, as TOML that [`read`](Self::read) accepts.
    ///
    /// # Errors
    /// When a value cannot be written in TOML.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        Ok(toml::to_string(self)?)
    }

    /// Checks that a run that began with `self` can be resumed with `now`.
    ///
    /// # Errors
    /// Names the first key that differs, if the results depend on it.
    pub fn check_resumes(&self, now: &Self) -> Result<(), TrainError> {
        let (mut then, mut now) = (Table::try_from(self)?, Table::try_from(now)?);
        for key in FREE_ON_RESUME {
            then.remove(key);
            now.remove(key);
        }
        check_same("", &then, &now)
    }

    fn overridden(self, over: Table, origin: &str) -> Result<Self, TrainError> {
        let mut base = Table::try_from(&self)?;
        for (key, value) in over {
            let Some(place) = base.get_mut(&key) else {
                let nearest = nearest(&key, base.keys().map(String::as_str)).unwrap_or_default();
                let nearest = nearest.into();
                return Err(TrainError::UnknownKey { origin: origin.into(), key, nearest });
            };
            *place = value;
            // checked after each key, so that an error can name the key
            Self::deserialize(base.clone()).map_err(|e| TrainError::BadValue {
                origin: origin.into(),
                key,
                reason: e.message().into(),
            })?;
        }
        Self::deserialize(base).map_err(|e| TrainError::BadValue {
            origin: origin.into(),
            key: "configuration".into(),
            reason: e.message().into(),
        })
    }
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

fn read_table(path: &Path) -> Result<Table, TrainError> {
    let text = std::fs::read_to_string(path).map_err(FileError::read(path))?;
    text.parse().map_err(|e: toml::de::Error| TrainError::NotToml {
        path: path.into(),
        reason: e.to_string().trim().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn flags_beat_the_file_and_the_file_beats_the_preset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "preset = \"debug-block\"\nsteps = 7\nlr = 0.5\n").unwrap();
        let config = TrainConfig::layered(Some(&path), &BTreeMap::from([("steps", 9)])).unwrap();
        assert_eq!((config.preset.as_str(), config.steps, config.lr), ("debug-block", 9, 0.5));
        std::fs::write(&path, config.to_toml().unwrap()).unwrap();
        assert_eq!(TrainConfig::read(&path).unwrap(), config);
        for (text, named) in
            [("stepz = 1", "stepz"), ("steps = \"x\"", "steps"), ("a = ", "c.toml")]
        {
            std::fs::write(&path, text).unwrap();
            let flags = BTreeMap::<String, u64>::new();
            let error = TrainConfig::layered(Some(&path), &flags).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("c.toml"), "{error}");
        }
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
        now.lr *= 2.0;
        assert!(then.check_resumes(&now).unwrap_err().to_string().contains("lr is"));
    }
}
