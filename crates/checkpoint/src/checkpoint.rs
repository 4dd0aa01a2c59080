//! One checkpoint folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_transformer_files::{FileError, NewFolder};
use block_transformer_text::Tokenizer;
use block_transformer_weights::{FloatFormat, HostTensors, read_tensors, write_tensors};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::RecordError;
use burn::tensor::Device;

use crate::error::CheckpointError;
use crate::folder::RunFolder;
use crate::manifest::{self, Manifest, read};
use crate::state::State;

const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optim.bpk";
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const STATE: &str = "state.json";
const UNUSED: &str = "unused.safetensors";

/// Contents of a checkpoint that is to be written.
pub struct Contents<'a> {
    /// The model.
    pub model: &'a LanguageModel,
    /// The model's configuration.
    pub config: &'a ModelConfig,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// State of the optimizer. Without it, a run cannot be resumed from the checkpoint.
    pub optimizer: Option<&'a ModuleOptimizer>,
    /// Position of the run.
    pub state: &'a State,
    /// Published tensors that no layer uses; they are kept for export.
    pub unused: &'a HostTensors,
}

/// An opened checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The checkpoint's folder.
    pub dir: PathBuf,
    /// Configuration of the model.
    pub config: ModelConfig,
    /// Position of the run that wrote the checkpoint.
    pub state: State,
    /// SHA-256 of the weights file, in lower-case hexadecimal.
    pub weights_sha256: String,
    /// The errors of newer checkpoints of the same run, which [`open`](Self::open) skipped because
    /// they are damaged; newest first.
    pub skipped: Arc<[CheckpointError]>,
}

impl Checkpoint {
    /// Writes the checkpoint folder `dir`. The folder appears complete or not at all.
    ///
    /// # Errors
    /// When the disk is full or not writable; a checkpoint that was there before is then unchanged.
    pub fn write(dir: &Path, contents: &Contents<'_>) -> Result<(), CheckpointError> {
        let folder = NewFolder::create(dir)?;
        let text = |name: &str, text: String| {
            let written = std::fs::write(folder.temporary_path(name), text + "\n");
            written.map_err(FileError::write(&folder.final_path(name)))
        };
        let unsaved = |name: &str| {
            let path = folder.final_path(name);
            move |source| CheckpointError::Record { action: "write", path, source }
        };
        let model = contents.model.clone().save_file(folder.temporary_path(MODEL));
        model.map_err(unsaved(MODEL))?;
        if let Some(optimizer) = contents.optimizer {
            optimizer.save(folder.temporary_path(OPTIMIZER)).map_err(unsaved(OPTIMIZER))?;
        }
        if !contents.unused.is_empty() {
            write_tensors(contents.unused, FloatFormat::F32, &folder.temporary_path(UNUSED))?;
        }
        text(CONFIG, contents.config.to_json())?;
        contents.tokenizer.save(&folder.temporary_path(TOKENIZER))?;
        text(STATE, json(&contents.state.with_versions(), &folder.final_path(STATE))?)?;
        let names = [MODEL, OPTIMIZER, UNUSED, CONFIG, TOKENIZER, STATE];
        let manifest = Manifest::of(&folder, &names)?;
        text(manifest::NAME, json(&manifest, &folder.final_path(manifest::NAME))?)?;
        Ok(folder.commit()?)
    }

    /// Opens a checkpoint folder, or the newest undamaged checkpoint of a run folder.
    ///
    /// # Errors
    /// When there is no undamaged checkpoint, or a newer version of the program wrote the
    /// checkpoint.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if dir.join(manifest::NAME).exists() || dir.join(MODEL).exists() {
            return Self::open_folder(dir);
        }
        let mut skipped = Vec::new();
        for path in RunFolder::new(dir).checkpoints().iter().rev() {
            match Self::open_folder(path) {
                Ok(checkpoint) => return Ok(Self { skipped: skipped.into(), ..checkpoint }),
                // this checkpoint is not damaged: an older one must not take its place, and a
                // resumed run must not remove it
                Err(error @ CheckpointError::NewerFormat { .. }) => return Err(error),
                Err(error) => skipped.push(error),
            }
        }
        Err(match skipped.into_iter().next() {
            Some(newest) => {
                CheckpointError::AllDamaged { path: dir.into(), newest: Box::new(newest) }
            }
            None if dir.exists() => CheckpointError::NoCheckpoint(dir.into()),
            None => CheckpointError::NoFolder(dir.into()),
        })
    }

    fn open_folder(dir: &Path) -> Result<Self, CheckpointError> {
        let manifest = Manifest::read(dir)?;
        manifest.verify(dir, &[MODEL, CONFIG, TOKENIZER, STATE])?;
        let weights_sha256 = manifest.files[MODEL].sha256.clone();
        let path = dir.join(CONFIG);
        let config = ModelConfig::from_json(&read(&path)?, &path.display().to_string())?;
        let path = dir.join(STATE);
        let state = State::from_json(&read(&path)?);
        let state = state.map_err(|e| CheckpointError::damaged(&path, e))?;
        Ok(Self { dir: dir.into(), config, state, weights_sha256, skipped: Arc::default() })
    }

    /// Loads the model onto `device`.
    ///
    /// # Errors
    /// When the weights do not fit the configuration.
    pub fn load_model(&self, device: &Device) -> Result<LanguageModel, CheckpointError> {
        let path = self.dir.join(MODEL);
        // initial weights are drawn lazily, so they cost nothing here
        let model = self.config.init(0, device);
        model.try_load_file(&path).map_err(unloaded(path))
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// When the tokenizer's file is damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer, CheckpointError> {
        Ok(Tokenizer::load(&self.dir.join(TOKENIZER))?)
    }

    /// Returns `optimizer` with the saved state, or `None` if the checkpoint has no optimizer state.
    ///
    /// # Errors
    /// When the saved state cannot be read.
    pub fn load_optimizer(
        &self,
        optimizer: ModuleOptimizer,
    ) -> Result<Option<ModuleOptimizer>, CheckpointError> {
        let path = self.dir.join(OPTIMIZER);
        let saved = path.exists().then(|| optimizer.load(&path));
        saved.transpose().map_err(unloaded(path))
    }

    /// Reads the published tensors that no layer uses.
    ///
    /// # Errors
    /// When the file of these tensors is damaged.
    pub fn unused(&self) -> Result<HostTensors, CheckpointError> {
        let path = self.dir.join(UNUSED);
        if path.exists() { Ok(read_tensors(&path)?) } else { Ok(HostTensors::new()) }
    }
}

/// For `map_err` after an attempt to load `path`.
fn unloaded(path: PathBuf) -> impl FnOnce(RecordError) -> CheckpointError {
    |source| CheckpointError::Record { action: "load", path, source }
}

/// `value` as JSON for the file `path`.
fn json(value: &impl serde::Serialize, path: &Path) -> Result<String, FileError> {
    serde_json::to_string_pretty(value).map_err(|e| FileError::write(path)(e.into()))
}
