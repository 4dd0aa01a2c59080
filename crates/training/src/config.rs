//! Everything a run is configured by: preset, then configuration file, then flags.

use std::path::{Path, PathBuf};

use block_transformer_datasets::TokenizerChoice;
use block_transformer_files::FileError;
use block_transformer_zoo::FamilyConfig;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::TrainError;

/// Configuration of a run; its TOML has every key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Preset of the model.
    pub preset: String,
    /// Recipe or path of the corpus; a preset has none.
    pub corpus: String,
    /// Folder of the run.
    pub out: PathBuf,
    /// Backend that computes, by its name.
    pub device: String,
    /// Seed of weights and windows.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences a micro-batch.
    pub batch: usize,
    /// Micro-batches a step, whose gradients are averaged.
    pub accumulate: usize,
    /// Tokens a sequence.
    pub context: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end, as a share of the peak.
    pub lr_end: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Largest global norm of a gradient.
    pub clip: f64,
    /// Steps between validations.
    pub validate_every: u64,
    /// Validation windows, spread evenly over the validation split.
    pub validation_windows: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints kept besides the best.
    pub keep: usize,
    /// Steps between printed lines.
    pub log_every: u64,
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerChoice,
}

/// Keys a resumed run may change: they do not touch what is computed.
const FREE_ON_RESUME: [&str; 5] = ["out", "device", "checkpoint_every", "keep", "log_every"];

impl TrainConfig {
    /// What `preset` is trained with when nothing else is said.
    ///
    /// # Errors
    /// When there is no such preset.
    pub fn from_preset(preset: &str) -> Result<Self, TrainError> {
        let train = &block_transformer_zoo::preset(preset)?.train;
        Ok(Self {
            preset: preset.into(),
            corpus: String::new(),
            out: Path::new("runs").join(preset),
            device: "flex".into(),
            seed: 0,
            steps: train.steps,
            batch: train.batch,
            accumulate: 1,
            context: train.context,
            lr: train.lr,
            lr_end: 0.1,
            warmup: train.warmup,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            validate_every: (train.steps / 10).clamp(1, 1000),
            validation_windows: 32,
            checkpoint_every: (train.steps / 5).clamp(1, 1000),
            keep: 3,
            log_every: (train.steps / 60).clamp(1, 10),
            tokenizer: TokenizerChoice::Bpe(2048),
        })
    }

    /// Preset, then the file at `path`, then `flags` (a struct or map of the keys given). The preset
    /// itself is named by the flags, else by the file, else `small-block`.
    ///
    /// # Errors
    /// When a file cannot be read, a key is unknown or has a value of another kind.
    pub fn layered(path: Option<&Path>, flags: &impl Serialize) -> Result<Self, TrainError> {
        let flags = table(flags)?;
        let file = path.map(read_table).transpose()?;
        let named = |table: &Table| table.get("preset")?.as_str().map(String::from);
        let preset = named(&flags).or_else(|| named(&file.as_ref()?.clone()));
        let mut config = Self::from_preset(preset.as_deref().unwrap_or("small-block"))?;
        if let (Some(file), Some(path)) = (file, path) {
            config = config.overlaid(file, &path.display().to_string())?;
        }
        config.overlaid(flags, "flags")
    }

    /// This configuration with the keys of `flags` in place of its own.
    ///
    /// # Errors
    /// When a key is unknown or has a value of another kind.
    pub fn with(self, flags: &impl Serialize) -> Result<Self, TrainError> {
        let flags = table(flags)?;
        self.overlaid(flags, "flags")
    }

    fn overlaid(self, over: Table, origin: &str) -> Result<Self, TrainError> {
        let mut base = table(&self)?;
        for (key, value) in over {
            if !base.contains_key(&key) {
                let known = base.keys().cloned().collect::<Vec<_>>().join(", ");
                let message = format!("{origin}: {key}: unknown key; the keys are {known}");
                return Err(TrainError::Choice(message));
            }
            let mut one = base.clone();
            one.insert(key.clone(), value.clone());
            // tried alone, so that the error names the key
            Self::deserialize(one).map_err(|e| {
                TrainError::Choice(format!("{origin}: {key}: {}", e.to_string().trim()))
            })?;
            base.insert(key, value);
        }
        Self::deserialize(base).map_err(|e| TrainError::Choice(format!("{origin}: {e}")))
    }

    /// Reads the TOML that [`to_toml`](Self::to_toml) wrote.
    ///
    /// # Errors
    /// When it cannot be read or is no configuration.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        Self::deserialize(read_table(path)?)
            .map_err(|e| TrainError::damaged(path, e.to_string().trim()))
    }

    /// Every key, as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// # Errors
    /// Names the flag that cannot be, and what it can be.
    pub fn check(&self) -> Result<(), TrainError> {
        let counts = [
            ("steps", self.steps),
            ("batch", self.batch as u64),
            ("accumulate", self.accumulate as u64),
            ("context", self.context as u64),
            ("validate-every", self.validate_every),
            ("validation-windows", self.validation_windows),
            ("checkpoint-every", self.checkpoint_every),
            ("keep", self.keep as u64),
            ("log-every", self.log_every),
        ];
        if let Some((flag, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(TrainError::Choice(format!("--{flag} 0: must be at least 1")));
        }
        for (flag, value, fits, range) in [
            ("lr", self.lr, self.lr > 0.0, "above 0"),
            ("lr-end", self.lr_end, (0.0..=1.0).contains(&self.lr_end), "from 0 to 1"),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "from 0 to below 1"),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "from 0 to below 1"),
            ("epsilon", self.epsilon, self.epsilon > 0.0, "above 0"),
            ("weight-decay", self.weight_decay, self.weight_decay >= 0.0, "0 or above"),
            ("clip", self.clip, self.clip > 0.0, "above 0"),
        ] {
            if !fits || !value.is_finite() {
                return Err(TrainError::Choice(format!("--{flag} {value}: must be {range}")));
            }
        }
        let length = block_transformer_zoo::preset(&self.preset)?.model.block_length();
        if !self.context.is_multiple_of(length) || self.context < 2 * length {
            return Err(TrainError::Choice(format!(
                "--context {}: must be a multiple of the preset's block_length {length}, at least {}; \
                 the nearest is {}",
                self.context,
                2 * length,
                self.context.next_multiple_of(length).max(2 * length),
            )));
        }
        Ok(())
    }

    /// Refuses to resume a run begun with `self` as `now` when they differ in what is computed.
    ///
    /// # Errors
    /// Names the first key that differs.
    pub fn check_resumes(&self, now: &Self) -> Result<(), TrainError> {
        let (then, now) = (table(self)?, table(now)?);
        for (key, old) in &then {
            let new = &now[key];
            if old != new && !FREE_ON_RESUME.contains(&key.as_str()) {
                return Err(TrainError::Choice(format!(
                    "--resume: {key} is {new}, but the run was begun with {old}; leave it out, or \
                     begin another run with another --out"
                )));
            }
        }
        Ok(())
    }
}

fn table(of: &impl Serialize) -> Result<Table, TrainError> {
    Table::try_from(of).map_err(|e| TrainError::Choice(e.to_string()))
}

fn read_table(path: &Path) -> Result<Table, TrainError> {
    let text = std::fs::read_to_string(path).map_err(FileError::read(path))?;
    text.parse().map_err(|e: toml::de::Error| TrainError::damaged(path, e.to_string().trim()))
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
        std::fs::write(&path, config.to_toml()).unwrap();
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
    fn impossible_choices_name_their_flag() {
        for (key, value) in
            [("steps", 0), ("batch", 0), ("context", 6), ("context", 4), ("keep", 0)]
        {
            let flags = BTreeMap::from([(key, value)]);
            let config = TrainConfig::layered(None, &flags).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(&format!("--{key} {value}")), "{error}");
        }
        let then = TrainConfig::from_preset("debug-block").unwrap();
        let mut now = TrainConfig { keep: 9, ..then.clone() };
        then.check_resumes(&now).unwrap();
        now.lr *= 2.0;
        assert!(then.check_resumes(&now).unwrap_err().to_string().contains("lr is"));
    }
}
