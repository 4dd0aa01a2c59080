//! Machines and their peaks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use block_transformer_family::Precision;
use serde::Deserialize;

/// A machine, as the cost model describes it. The file of a machine is TOML with these keys.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The name.
    pub name: String,
    /// The peak of matrix products, in FLOP/s.
    pub flops: f64,
    /// The peak of reading memory, in bytes per second.
    pub bandwidth: f64,
    /// Memory for weights, caches and activations, in bytes.
    pub memory: f64,
    /// The time of a kernel launch in seconds; 0 where launches take no time.
    #[serde(default)]
    pub launch: f64,
    /// The precision in which models are stored on it.
    #[serde(default)]
    pub precision: Precision,
}

/// A machine that is not known, or a file that does not describe one.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// There is neither a machine nor a readable file of that name.
    #[error("`{name}` is neither one of {known} nor a file that can be read")]
    Unknown {
        /// The name.
        name: PathBuf,
        /// The names of the known machines.
        known: String,
        /// The error of reading the file.
        source: std::io::Error,
    },
    /// The file is not TOML with the keys of [`Machine`], or a value is out of range.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key and the problem.
        reason: String,
    },
}

impl Machine {
    /// Returns the machine called `name`, or the one that the file of that name describes.
    ///
    /// # Errors
    /// When there is neither a machine nor a readable file of that name, a key is missing or
    /// unknown, or a value is out of range.
    pub fn open(name: &Path) -> Result<Self, MachineError> {
        let mut named = named();
        if let Some(machine) = name.to_str().and_then(|name| named.remove(name)) {
            return Ok(machine);
        }
        let known = named.into_keys().collect::<Vec<_>>().join(", ");
        let text = std::fs::read_to_string(name).map_err(|source| MachineError::Unknown {
            name: name.into(),
            known,
            source,
        })?;
        let invalid = |reason| MachineError::Invalid { path: name.into(), reason };
        let machine: Self = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        for (key, value) in
            [("flops", machine.flops), ("bandwidth", machine.bandwidth), ("memory", machine.memory)]
        {
            if !(value.is_finite() && value > 0.0) {
                return Err(invalid(format!("{key}: {value} must be positive")));
            }
        }
        if !(machine.launch.is_finite() && machine.launch >= 0.0) {
            return Err(invalid(format!("launch: {} must not be negative", machine.launch)));
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
    fn a_machine_is_known_by_name_or_described_by_a_file() {
        assert!(Machine::open(Path::new("h100")).unwrap().flops > 9e14);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let sheet = "name = \"mine\"\nflops = 1e11\nbandwidth = 1e10\nmemory = 8e9\n";
        std::fs::write(&path, sheet).unwrap();
        assert_eq!(Machine::open(&path).unwrap().precision, Precision::F32);
        for (text, said) in [
            (sheet.replace("1e11", "0.0"), "flops: 0 must be positive"),
            (sheet.replace("memory", "memroy"), "memroy"),
            (format!("{sheet}launch = -1e-6\n"), "launch: -0.000001 must not be negative"),
            ("name = \"mine\"".into(), "flops"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Machine::open(&path).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("mine.toml"), "{error}");
        }
        let error = Machine::open(Path::new("h1000")).unwrap_err().to_string();
        assert!(error.contains("h1000") && error.contains("a100, h100"), "{error}");
    }
}
