//! One checkpoint folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_transformer_files::read_text_up_to;
use block_transformer_text::Tokenizer;
use block_transformer_weights::{HostTensors, read_tensors};
use block_transformer_zoo::family::{Lora, with_lora_factors};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::RecordError;
use burn::tensor::Device;

use crate::error::CheckpointError;
use crate::folder::RunFolder;
use crate::lineage::Lineage;
use crate::manifest::{self, MAX_JSON, Manifest};
use crate::mismatch::differences;
use crate::snapshot::{
    ADAPTERS, CONFIG, Contents, MODEL, OPTIMIZER, STATE, Snapshot, TOKENIZER, UNUSED,
};
use crate::state::State;

/// The largest configuration of a model in bytes.
const MAX_CONFIG: u64 = 4 << 20;

/// The most checkpoints of adapters on top of each other.
const MOST_BASES: usize = 16;

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
    /// Writes the checkpoint folder `dir`, one tensor after the other. The folder appears complete or not at all.
    ///
    /// # Errors
    /// When the disk is full or not writable; a checkpoint that was there before is then unchanged.
    pub fn write(dir: &Path, contents: &Contents<'_>) -> Result<(), CheckpointError> {
        Snapshot::uncopied(contents).write(dir)
    }

    /// Opens a checkpoint folder, or the newest undamaged checkpoint of a run folder.
    ///
    /// # Errors
    /// When there is no undamaged checkpoint, or a newer version of the program wrote the
    /// checkpoint.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        Self::open_files(dir, &[])
    }

    /// Opens a checkpoint like [`open`](Self::open) to use its model. The optimizer state, which has twice
    /// the size of the model, is not read, and its damage is not noticed.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open).
    pub fn open_model(dir: &Path) -> Result<Self, CheckpointError> {
        Self::open_files(dir, &[OPTIMIZER])
    }

    fn open_files(dir: &Path, unread: &[&str]) -> Result<Self, CheckpointError> {
        if [manifest::NAME, MODEL, ADAPTERS].iter().any(|name| dir.join(name).exists()) {
            return Self::open_folder(dir, unread);
        }
        let mut skipped = Vec::new();
        for path in RunFolder::new(dir).checkpoints().iter().rev() {
            match Self::open_folder(path, unread) {
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
            None if dir.is_file() => CheckpointError::NotAFolder(dir.into()),
            None if dir.exists() => CheckpointError::NoCheckpoint(dir.into()),
            None => CheckpointError::NoFolder(dir.into()),
        })
    }

    fn open_folder(dir: &Path, unread: &[&str]) -> Result<Self, CheckpointError> {
        let manifest = Manifest::read(dir)?;
        let weights = if manifest.files.contains_key(ADAPTERS) { ADAPTERS } else { MODEL };
        manifest.verify(dir, &[weights, CONFIG, TOKENIZER, STATE], unread)?;
        let weights_sha256 = manifest.files[weights].sha256.clone();
        let path = dir.join(CONFIG);
        let config = read_text_up_to(&path, MAX_CONFIG)?;
        let config = ModelConfig::from_json(&config, &path.display().to_string())?;
        let path = dir.join(STATE);
        let state = State::from_json(&read_text_up_to(&path, MAX_JSON)?);
        let state = state.map_err(|e| CheckpointError::damaged(&path, e))?;
        Ok(Self { dir: dir.into(), config, state, weights_sha256, skipped: Arc::default() })
    }

    /// Loads the model onto `device`. Adapters are merged into the weights that they belong to.
    ///
    /// # Errors
    /// When the weights do not fit the configuration, or those that adapters belong to are not where they were.
    pub fn load_model(&self, device: &Device) -> Result<LanguageModel, CheckpointError> {
        self.load_merged(device, MOST_BASES)
    }

    fn load_merged(&self, device: &Device, bases: usize) -> Result<LanguageModel, CheckpointError> {
        let Some(lora) = &self.state.lora else { return self.load_weights(device) };
        let merged = self.load_adapted(lora, device, bases)?.valid().materialize();
        // merged weights are frozen; those of a new model can be trained
        let model = self.config.init(0, device);
        model.try_load_record(merged.into_record()).map_err(unloaded(self.dir.join(ADAPTERS)))
    }

    /// Loads the model onto `device`. The weights that have adapters are frozen.
    ///
    /// # Errors
    /// Those of [`load_model`](Self::load_model).
    pub fn load_unmerged(&self, device: &Device) -> Result<LanguageModel, CheckpointError> {
        match &self.state.lora {
            Some(lora) => self.load_adapted(lora, device, MOST_BASES),
            None => self.load_weights(device),
        }
    }

    fn load_adapted(
        &self,
        lora: &Lora,
        device: &Device,
        bases: usize,
    ) -> Result<LanguageModel, CheckpointError> {
        // a checkpoint that names itself as its origin would be opened forever
        let bases = bases.checked_sub(1).ok_or_else(|| {
            let reason =
                format!("more than {MOST_BASES} checkpoints of adapters belong to each other");
            CheckpointError::damaged(&self.dir.join(STATE), reason)
        })?;
        let path = self.dir.join(ADAPTERS);
        let lineage = self.state.lineage.as_ref();
        let lineage = lineage.ok_or_else(|| {
            CheckpointError::damaged(&self.dir.join(STATE), "the origin of the weights is missing")
        })?;
        let base = Self::of_lineage(lineage).map_err(|source| CheckpointError::NoBase {
            path: path.clone(),
            source: Box::new(source),
        })?;
        let model = lora.attach(base.load_merged(device, bases)?, 0, device);
        let tensors = read_tensors(&path)?.into_iter();
        let factors = tensors.map(|(name, tensor)| (name, (tensor.shape, tensor.values))).collect();
        with_lora_factors(model, factors).map_err(|reason| CheckpointError::damaged(&path, reason))
    }

    /// Opens the checkpoint that `lineage` names, which must still have the same weights.
    fn of_lineage(lineage: &Lineage) -> Result<Self, CheckpointError> {
        let base = Self::open_model(Path::new(&lineage.source))?;
        if base.weights_sha256 == lineage.sha256 {
            return Ok(base);
        }
        let reason =
            format!("its weights have the SHA-256 {}, not {}", base.weights_sha256, lineage.sha256);
        Err(CheckpointError::OtherWeights { path: base.dir, reason })
    }

    fn load_weights(&self, device: &Device) -> Result<LanguageModel, CheckpointError> {
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
    |source| match differences(&source) {
        Some(differences) => CheckpointError::Mismatch { path, differences },
        None => CheckpointError::Record { action: "load", path, source },
    }
}
