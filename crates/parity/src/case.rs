//! Cases on disk: `NAME.json`, `NAME.model.safetensors`, `NAME.golden.safetensors`.

use std::path::{Path, PathBuf};

use block_transformer_files::FileError;
use block_transformer_weights::{HostTensor, HostTensors, import, read_tensors};
use block_transformer_zoo::{FamilyConfig, LanguageModel, ModelConfig, PaddingMask, TokenBatch};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::error::ParityError;

/// A recorded model with its inputs and outputs.
#[derive(Debug)]
pub struct Case {
    /// Name of the case.
    pub name: String,
    /// Configuration of the model.
    pub config: ModelConfig,
    weights: PathBuf,
    golden: HostTensors,
    golden_path: PathBuf,
}

/// Returns the sorted names of the cases in `dir`.
///
/// # Errors
/// When the folder cannot be read or holds no case.
pub fn find_cases(dir: &Path) -> Result<Vec<String>, ParityError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(FileError::read(dir))? {
        let path = entry.map_err(FileError::read(dir))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".json")) else {
            continue;
        };
        if dir.join(format!("{name}.golden.safetensors")).exists() {
            names.push(name.to_string());
        }
    }
    names.sort();
    if names.is_empty() {
        let reason =
            "no NAME.json with NAME.model.safetensors and NAME.golden.safetensors beside it";
        return Err(ParityError::Missing { path: dir.into(), reason: reason.into() });
    }
    Ok(names)
}

impl Case {
    /// Reads the case called `name` in `dir`.
    ///
    /// # Errors
    /// When one of its files cannot be read.
    pub fn open(dir: &Path, name: &str) -> Result<Self, ParityError> {
        let path = dir.join(format!("{name}.json"));
        let json = std::fs::read_to_string(&path).map_err(FileError::read(&path))?;
        let golden_path = dir.join(format!("{name}.golden.safetensors"));
        Ok(Self {
            name: name.to_string(),
            config: ModelConfig::from_json(&json, &path.display().to_string())?,
            weights: dir.join(format!("{name}.model.safetensors")),
            golden: read_tensors(&golden_path)?,
            golden_path,
        })
    }

    /// The model with the recorded weights.
    pub(crate) fn model(&self, device: &Device) -> Result<LanguageModel, ParityError> {
        let model = self.config.init(0, device);
        Ok(import(model, &self.config, &self.weights)?.0)
    }

    /// A recorded tensor.
    pub(crate) fn golden(&self, name: &str) -> Result<&HostTensor, ParityError> {
        let (path, reason) = (self.golden_path.clone(), format!("no tensor `{name}`"));
        self.golden.get(name).ok_or(ParityError::Missing { path, reason })
    }

    /// Returns the recorded tensors with names that start with `prefix`, by the rest of the name.
    pub(crate) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a HostTensor)> {
        self.golden.iter().filter_map(move |(name, t)| Some((name.strip_prefix(prefix)?, t)))
    }

    /// True where the recorded input holds a token, `[batch * time]`.
    pub(crate) fn is_token(&self) -> Result<Vec<bool>, ParityError> {
        let ids = self.golden("input_ids")?;
        Ok(match self.golden.get("attention_mask") {
            Some(mask) => mask.values.iter().map(|&v| v != 0.0).collect(),
            None => vec![true; ids.values.len()],
        })
    }

    /// The recorded input.
    pub(crate) fn batch(&self, device: &Device) -> Result<TokenBatch, ParityError> {
        let ids = self.golden("input_ids")?;
        let batch = ids.shape[0];
        let shape = [batch, ids.values.len() / batch];
        let ids: Vec<i64> = ids.values.iter().map(|&v| v as i64).collect();
        Ok(TokenBatch {
            ids: Tensor::<2, Int>::from_data(TensorData::new(ids, shape), device),
            is_token: PaddingMask::new(self.is_token()?),
            block_length: self.config.block_length(),
        })
    }
}
