//! Peaks of machines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A machine, as far as the model knows it. As a file it is TOML with these keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What it is.
    pub name: String,
    /// Peak of matrix products, FLOP/s.
    pub flops: f64,
    /// Peak of reading memory, bytes a second.
    pub bandwidth: f64,
    /// Memory for weights, caches and activations, bytes.
    pub memory: f64,
    /// What matrices are stored in.
    #[serde(default)]
    pub weights: Number,
    /// What caches and activations are stored in.
    #[serde(default)]
    pub numbers: Number,
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Number {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes.
    Bf16,
    /// 2 bytes.
    F16,
}

impl Number {
    /// Bytes a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// A machine that is not known.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Neither a name nor a file.
    #[error("{name}: neither one of {known} nor a file that can be read ({reason})")]
    Unknown {
        /// What was asked for.
        name: PathBuf,
        /// The machines that have a name.
        known: String,
        /// Why it is no file.
        reason: String,
    },
    /// The file describes no machine.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, by key.
        reason: String,
    },
}

impl Machine {
    /// The machine called `name`, or described by the file of that name.
    ///
    /// # Errors
    /// When there is neither, a key is missing or unknown, or a peak is not positive.
    pub fn open(name: &Path) -> Result<Self, MachineError> {
        let mut named = named();
        if let Some(machine) = name.to_str().and_then(|name| named.remove(name)) {
            return Ok(machine);
        }
        let known = named.into_keys().collect::<Vec<_>>().join(", ");
        let text = std::fs::read_to_string(name).map_err(|error| MachineError::Unknown {
            name: name.into(),
            known,
            reason: error.to_string(),
        })?;
        let file = |reason: String| MachineError::File { path: name.into(), reason };
        let machine: Self = toml::from_str(&text).map_err(|error| file(error.to_string()))?;
        for (key, value) in
            [("flops", machine.flops), ("bandwidth", machine.bandwidth), ("memory", machine.memory)]
        {
            if !(value.is_finite() && value > 0.0) {
                return Err(file(format!("{key}: {value} must be positive")));
            }
        }
        Ok(machine)
    }
}

fn named() -> BTreeMap<String, Machine> {
    toml::from_str(include_str!("../machines.toml")).expect("a test reads it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_name_or_a_file() {
        assert!(Machine::open(Path::new("h100")).unwrap().flops > 9e14);
        let dir = std::env::temp_dir().join(format!("zoo-machine-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("mine.toml");
        let sheet = "name = \"mine\"\nflops = 1e11\nbandwidth = 1e10\nmemory = 8e9\n";
        std::fs::write(&path, sheet).unwrap();
        assert_eq!(Machine::open(&path).unwrap().numbers, Number::F32);
        for (text, said) in [
            (sheet.replace("1e11", "0.0"), "flops: 0 must be positive"),
            (sheet.replace("memory", "memroy"), "memroy"),
            ("name = \"mine\"".into(), "flops"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Machine::open(&path).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("mine.toml"), "{error}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
        let error = Machine::open(Path::new("h1000")).unwrap_err().to_string();
        assert!(error.contains("h1000") && error.contains("a100, h100"), "{error}");
    }
}
