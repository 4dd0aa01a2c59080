//! The contents of a checkpoint in the memory of the process.

use std::path::Path;

use block_transformer_files::{FileError, NewFolder};
use block_transformer_text::Tokenizer;
use block_transformer_weights::{FloatFormat, HostTensor, HostTensors, write_tensors};
use block_transformer_zoo::family::lora_factors;
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;

use crate::error::CheckpointError;
use crate::manifest::{self, Manifest};
use crate::state::State;
use crate::streamed;

pub(crate) const MODEL: &str = "model.bpk";
pub(crate) const OPTIMIZER: &str = "optim.bpk";
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const STATE: &str = "state.json";
pub(crate) const UNUSED: &str = "unused.safetensors";
/// In the place of the model: adapters of the model that the state's lineage names.
pub(crate) const ADAPTERS: &str = "adapters.safetensors";

/// Contents of a checkpoint that is to be written.
pub struct Contents<'a> {
    /// The model. Of a model with adapters, only these are written: the state's lineage names the rest.
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

/// A record, or the file that holds it.
enum Copied<R> {
    Adapters(HostTensors),
    /// The weights themselves, which do not change before they are written.
    Model(Box<LanguageModel>),
    Record(R),
    Bytes(Result<Bytes, RecordError>),
}

/// A copy of [`Contents`] in the memory of the process. Another thread can write it while the model is
/// trained.
pub struct Snapshot {
    model: Copied<ModuleRecord>,
    config: ModelConfig,
    tokenizer: Tokenizer,
    optimizer: Option<Copied<OptimizerRecord>>,
    state: State,
    unused: HostTensors,
}

impl Snapshot {
    /// Copies `contents` from any device.
    pub fn of(contents: &Contents<'_>) -> Self {
        let bytes = |optimizer: &ModuleOptimizer| Copied::Bytes(optimizer.to_record().into_bytes());
        let model = adapters(contents)
            .unwrap_or_else(|| Copied::Bytes(contents.model.clone().into_record().into_bytes()));
        Self::new(contents, model, contents.optimizer.map(bytes))
    }

    /// [`of`](Self::of) for flex and ndarray, with half the memory. The tensors of a record are copies there,
    /// or values that nothing else refers to. On a CubeCL device they can be the memory of the device, which
    /// the next step overwrites.
    pub fn of_processor(contents: &Contents<'_>) -> Self {
        let record = |optimizer: &ModuleOptimizer| Copied::Record(optimizer.to_record());
        let model = adapters(contents)
            .unwrap_or_else(|| Copied::Record(contents.model.clone().into_record()));
        Self::new(contents, model, contents.optimizer.map(record))
    }

    /// The contents without a copy of the model, to be written before it changes.
    pub(crate) fn uncopied(contents: &Contents<'_>) -> Self {
        let bytes = |optimizer: &ModuleOptimizer| Copied::Bytes(optimizer.to_record().into_bytes());
        let model = || Copied::Model(Box::new(contents.model.clone()));
        let model = adapters(contents).unwrap_or_else(model);
        Self::new(contents, model, contents.optimizer.map(bytes))
    }

    fn new(
        contents: &Contents<'_>,
        model: Copied<ModuleRecord>,
        optimizer: Option<Copied<OptimizerRecord>>,
    ) -> Self {
        Self {
            model,
            config: contents.config.clone(),
            tokenizer: contents.tokenizer.clone(),
            optimizer,
            state: contents.state.clone(),
            unused: contents.unused.clone(),
        }
    }

    /// Writes the checkpoint folder `dir`. The folder appears complete or not at all.
    ///
    /// # Errors
    /// When the disk is full or not writable; a checkpoint that was there before is then unchanged.
    pub fn write(self, dir: &Path) -> Result<(), CheckpointError> {
        let folder = NewFolder::create(dir)?;
        let text = |name: &str, text: String| {
            let written = std::fs::write(folder.temporary_path(name), text + "\n");
            written.map_err(FileError::write(&folder.final_path(name)))
        };
        let unsaved = |name: &str| {
            let path = folder.final_path(name);
            move |source| CheckpointError::Record { action: "write", path, source }
        };
        let bytes =
            |name: &str, bytes: Result<Bytes, RecordError>| -> Result<(), CheckpointError> {
                let bytes = bytes.map_err(unsaved(name))?;
                let written = std::fs::write(folder.temporary_path(name), &*bytes);
                Ok(written.map_err(FileError::write(&folder.final_path(name)))?)
            };
        match self.model {
            Copied::Adapters(tensors) => {
                write_tensors(&tensors, FloatFormat::F32, &folder.temporary_path(ADAPTERS))?;
            }
            Copied::Model(model) => {
                streamed::save(&*model, &folder.temporary_path(MODEL)).map_err(unsaved(MODEL))?;
            }
            Copied::Bytes(model) => bytes(MODEL, model)?,
            Copied::Record(model) => {
                model.save(folder.temporary_path(MODEL)).map_err(unsaved(MODEL))?;
            }
        }
        match self.optimizer {
            None | Some(Copied::Adapters(_) | Copied::Model(_)) => {}
            Some(Copied::Bytes(optimizer)) => bytes(OPTIMIZER, optimizer)?,
            Some(Copied::Record(optimizer)) => {
                optimizer.save(folder.temporary_path(OPTIMIZER)).map_err(unsaved(OPTIMIZER))?;
            }
        }
        if !self.unused.is_empty() {
            write_tensors(&self.unused, FloatFormat::F32, &folder.temporary_path(UNUSED))?;
        }
        text(CONFIG, self.config.to_json())?;
        self.tokenizer.save(&folder.temporary_path(TOKENIZER))?;
        text(STATE, json(&self.state.with_versions(), &folder.final_path(STATE))?)?;
        let names = [MODEL, ADAPTERS, OPTIMIZER, UNUSED, CONFIG, TOKENIZER, STATE];
        let manifest = Manifest::of(&folder, &names)?;
        text(manifest::NAME, json(&manifest, &folder.final_path(manifest::NAME))?)?;
        Ok(folder.commit()?)
    }
}

/// The adapters of the model, if it has some.
fn adapters(contents: &Contents<'_>) -> Option<Copied<ModuleRecord>> {
    let factors = lora_factors(contents.model);
    let tensors =
        factors.into_iter().map(|(path, (shape, values))| (path, HostTensor { shape, values }));
    let tensors: HostTensors = tensors.collect();
    (!tensors.is_empty()).then_some(Copied::Adapters(tensors))
}

/// `value` as JSON for the file `path`.
fn json(value: &impl serde::Serialize, path: &Path) -> Result<String, FileError> {
    serde_json::to_string_pretty(value).map_err(|e| FileError::write(path)(e.into()))
}
