//! Checkpoints: folders with everything a run goes on from, complete or absent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use block_transformer_text::{CorpusInfo, Tokenizer};
use block_transformer_weights::{Dtype, HostTensors, read_tensors, write_tensors};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::durable::{Staged, digest};
use crate::folder::RunFolder;
use crate::{TrainConfig, TrainError};

const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optim.bpk";
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const STATE: &str = "state.json";
const UNUSED: &str = "unused.safetensors";
const MANIFEST: &str = "manifest.json";

/// Where a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Steps done.
    pub step: u64,
    /// Tokens trained on, padding not counted.
    pub tokens: u64,
    /// Seconds spent.
    pub seconds: f64,
    /// Training loss of the last step.
    pub train_loss: Option<f64>,
    /// The latest validation loss.
    pub validation_loss: Option<f64>,
    /// The lowest validation loss and its step.
    pub best: Option<(u64, f64)>,
    /// The run's configuration; none for imported weights.
    pub train: Option<TrainConfig>,
    /// The corpus; none for imported weights.
    pub corpus: Option<CorpusInfo>,
    /// What wrote the checkpoint.
    pub versions: BTreeMap<String, String>,
}

impl TrainState {
    /// The state of weights that came from elsewhere.
    pub fn imported() -> Self {
        Self { versions: versions(), ..Self::default() }
    }
}

pub(crate) fn versions() -> BTreeMap<String, String> {
    // the workspace pins burn to exactly this
    let versions = [("zoo-training", env!("CARGO_PKG_VERSION")), ("burn", "0.22.1")];
    versions.map(|(name, version)| (name.into(), version.into())).into()
}

/// What a checkpoint is written from.
pub struct Contents<'a> {
    /// Weights.
    pub model: &'a LanguageModel,
    /// Their shape.
    pub config: &'a ModelConfig,
    /// The tokenizer the model reads.
    pub tokenizer: &'a Tokenizer,
    /// State of the optimizer; without it the checkpoint cannot be resumed from.
    pub optimizer: Option<&'a ModuleOptimizer>,
    /// Where the run is.
    pub state: &'a TrainState,
    /// Published tensors that nothing computes with, kept for export.
    pub unused: &'a HostTensors,
}

/// An opened checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub dir: PathBuf,
    /// Shape of the model.
    pub config: ModelConfig,
    /// Where its run was.
    pub state: TrainState,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    size: u64,
    sha256: String,
}

type Manifest = BTreeMap<String, Listed>;

impl Checkpoint {
    /// Writes the checkpoint folder `dir`, which is complete once it is there.
    ///
    /// # Errors
    /// When the disk refuses; nothing is left behind then, and nothing written before is lost.
    pub fn write(dir: &Path, contents: &Contents<'_>) -> Result<(), TrainError> {
        let staged = Staged::new(dir)?;
        let wrote = |name: &str, result: Result<(), String>| {
            result.map_err(TrainError::io(&staged.place(name)))
        };
        let text = |name: &str, text: String| {
            let path = staged.path(name);
            wrote(name, std::fs::write(path, text + "\n").map_err(|e| e.to_string()))
        };
        let model = contents.model.clone().save_file(staged.path(MODEL));
        wrote(MODEL, model.map_err(|e| e.to_string()))?;
        if let Some(optimizer) = contents.optimizer {
            let saved = optimizer.save(staged.path(OPTIMIZER));
            wrote(OPTIMIZER, saved.map_err(|e| e.to_string()))?;
        }
        if !contents.unused.is_empty() {
            let saved = write_tensors(contents.unused, Dtype::F32, &staged.path(UNUSED));
            wrote(UNUSED, saved.map_err(|e| e.to_string()))?;
        }
        text(CONFIG, contents.config.to_json())?;
        let tokenizer = contents.tokenizer.save(&staged.path(TOKENIZER));
        wrote(TOKENIZER, tokenizer.map_err(|e| e.to_string()))?;
        text(STATE, serde_json::to_string_pretty(contents.state).unwrap_or_default())?;
        let mut manifest = Manifest::new();
        for name in [MODEL, OPTIMIZER, UNUSED, CONFIG, TOKENIZER, STATE] {
            let path = staged.path(name);
            if path.exists() {
                let digest = digest(&path).map_err(TrainError::io(&staged.place(name)))?;
                manifest.insert(name.into(), Listed { size: digest.0, sha256: digest.1 });
            }
        }
        text(MANIFEST, serde_json::to_string_pretty(&manifest).unwrap_or_default())?;
        staged.commit()
    }

    /// Opens a checkpoint folder, or the newest complete checkpoint of a run folder. Damaged ones
    /// that are passed over are named on stderr.
    ///
    /// # Errors
    /// When there is none, or none that is whole.
    pub fn open(dir: &Path) -> Result<Self, TrainError> {
        if dir.join(MANIFEST).exists() || dir.join(MODEL).exists() {
            return Self::open_folder(dir);
        }
        let folder = RunFolder::new(dir);
        let steps = folder.checkpoints();
        for path in steps.iter().rev() {
            match Self::open_folder(path) {
                Ok(checkpoint) => return Ok(checkpoint),
                Err(error) => eprintln!("warning: skipping a damaged checkpoint: {error}"),
            }
        }
        let reason = match (dir.exists(), steps.is_empty()) {
            (false, _) => "there is no such folder",
            (true, true) => "neither a checkpoint nor a run with one",
            (true, false) => "every checkpoint of the run is damaged",
        };
        Err(TrainError::damaged(dir, reason))
    }

    /// The checkpoint of lowest validation loss of the run folder `dir`.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn open_best(dir: &Path) -> Result<Self, TrainError> {
        match RunFolder::new(dir).best() {
            Some(path) => Self::open_folder(&path),
            None => Err(TrainError::damaged(dir, "the run has no best checkpoint")),
        }
    }

    fn open_folder(dir: &Path) -> Result<Self, TrainError> {
        verify(dir)?;
        let path = dir.join(CONFIG);
        let config = ModelConfig::from_json(&read(&path)?, &path.display().to_string())?;
        let path = dir.join(STATE);
        let state = serde_json::from_str(&read(&path)?)
            .map_err(|e| TrainError::damaged(&path, e.to_string()))?;
        Ok(Self { dir: dir.into(), config, state })
    }

    /// The model on `device`.
    ///
    /// # Errors
    /// When the weights are not those of the configuration.
    pub fn load_model(&self, device: &Device) -> Result<LanguageModel, TrainError> {
        let path = self.dir.join(MODEL);
        // drawn lazily, so the first weights cost nothing
        let model = self.config.init(0, device);
        model.try_load_file(&path).map_err(|e| TrainError::damaged(&path, e.to_string()))
    }

    /// SHA-256 of the weights, as they were written.
    ///
    /// # Errors
    /// When the manifest cannot be read.
    pub fn weights_sha256(&self) -> Result<String, TrainError> {
        let manifest = manifest(&self.dir)?;
        Ok(manifest.get(MODEL).map(|listed| listed.sha256.clone()).unwrap_or_default())
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When its file is damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer, TrainError> {
        Ok(Tokenizer::load(&self.dir.join(TOKENIZER))?)
    }

    /// `optimizer` with the state saved; none when the checkpoint has no optimizer.
    pub(crate) fn load_optimizer(
        &self,
        optimizer: ModuleOptimizer,
    ) -> Result<Option<ModuleOptimizer>, TrainError> {
        let path = self.dir.join(OPTIMIZER);
        if !path.exists() {
            return Ok(None);
        }
        let loaded = optimizer.load(&path);
        loaded.map(Some).map_err(|e| TrainError::damaged(&path, e.to_string()))
    }

    /// Published tensors that nothing computes with.
    ///
    /// # Errors
    /// When their file is damaged.
    pub fn unused(&self) -> Result<HostTensors, TrainError> {
        let path = self.dir.join(UNUSED);
        if path.exists() { Ok(read_tensors(&path)?) } else { Ok(HostTensors::new()) }
    }
}

/// Every file of the manifest as it was written.
fn verify(dir: &Path) -> Result<(), TrainError> {
    let (path, manifest) = (dir.join(MANIFEST), manifest(dir)?);
    for name in [MODEL, CONFIG, TOKENIZER, STATE] {
        if !manifest.contains_key(name) {
            return Err(TrainError::damaged(&path, format!("{name} is not listed")));
        }
    }
    for (name, listed) in manifest {
        let path = dir.join(name);
        let (size, sha256) = digest(&path).map_err(TrainError::io(&path))?;
        if size != listed.size {
            let reason = format!("{size} bytes where {} were written", listed.size);
            return Err(TrainError::damaged(&path, reason));
        }
        if sha256 != listed.sha256 {
            return Err(TrainError::damaged(&path, "its bytes have changed (SHA-256 differs)"));
        }
    }
    Ok(())
}

fn manifest(dir: &Path) -> Result<Manifest, TrainError> {
    let path = dir.join(MANIFEST);
    serde_json::from_str(&read(&path)?).map_err(|e| TrainError::damaged(&path, e.to_string()))
}

fn read(path: &Path) -> Result<String, TrainError> {
    std::fs::read_to_string(path).map_err(TrainError::io(path))
}
