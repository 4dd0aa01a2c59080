//! The weights that a run begins with.

use std::path::Path;

use block_transformer_checkpoint::{Checkpoint, Lineage};
use block_transformer_text::Tokenizer;
use block_transformer_weights::{HostTensors, Source, load, published_tensors};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::tensor::Device;

use crate::config::TrainConfig;
use crate::distill::Teacher;
use crate::error::TrainError;
use crate::optimizer::optimizer;
use crate::trainer::Trainer;
use crate::uptrain::{Uptrain, Uptrained};

/// The checkpoint whose weights a run begins with.
pub struct Origin {
    checkpoint: Checkpoint,
    uptrain: Uptrain,
}

impl Origin {
    /// Opens the checkpoint that `config` names; `None` if the run begins with new weights. Call it before a corpus
    /// is prepared.
    ///
    /// # Errors
    /// When the checkpoint cannot be used, or its model cannot become that of the run.
    pub fn open(config: &TrainConfig) -> Result<Option<Self>, TrainError> {
        if config.from.is_empty() {
            return Ok(None);
        }
        let origin = Self::new(Checkpoint::open_model(Path::new(&config.from))?, config.uptrain);
        origin.check(config)?;
        Ok(Some(origin))
    }

    /// The weights of an opened checkpoint.
    pub fn new(checkpoint: Checkpoint, uptrain: Uptrain) -> Self {
        Self { checkpoint, uptrain }
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The shape of the model that the run trains: that of the source, or that of the Block Transformer made
    /// from it.
    ///
    /// # Errors
    /// When the source cannot become a Block Transformer.
    pub fn model(&self) -> Result<ModelConfig, TrainError> {
        match (self.uptrain, &self.checkpoint.config) {
            (Uptrain::Off, config) => Ok(config.clone()),
            (method, ModelConfig::Vanilla(config)) => Ok(ModelConfig::Block(method.shape(config)?)),
            _ => Err(TrainError::NotVanilla(self.checkpoint.dir.clone())),
        }
    }

    fn check(&self, config: &TrainConfig) -> Result<(), TrainError> {
        let model = self.model()?;
        if model == config.model {
            return Ok(());
        }
        Err(TrainError::OtherShape {
            path: self.checkpoint.dir.clone(),
            model: Box::new(model),
            config: Box::new(config.model.clone()),
        })
    }

    /// Checks that `tokenizer`, that of the corpus, is that of the weights.
    pub(crate) fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<(), TrainError> {
        let own = self.checkpoint.tokenizer()?;
        if own.fingerprint()? == tokenizer.fingerprint()? {
            return Ok(());
        }
        Err(TrainError::OtherTokenizer {
            path: self.checkpoint.dir.clone(),
            own: own.vocab_size(),
            corpus: tokenizer.vocab_size(),
        })
    }

    /// Checks that the origin still has the weights that the run began with.
    pub(crate) fn check_same(&self, began: Option<&Lineage>) -> Result<(), TrainError> {
        let found = self.checkpoint.weights_sha256.clone();
        match began {
            Some(began) if began.sha256 != found => Err(TrainError::OtherOrigin {
                path: self.checkpoint.dir.clone(),
                found,
                expected: began.sha256.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The trainer of a run that begins, and the published tensors that its model does not use.
    pub(crate) fn trainer(
        &self,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<(Trainer, HostTensors), TrainError> {
        let teacher = self.teacher(config, device)?;
        let device = device.clone().autodiff();
        let (model, unused) = self.load(&device)?;
        let model = match &config.lora {
            Some(lora) => lora.attach(model, config.seed, &device),
            None => model,
        };
        let (optimizer, skip) = optimizer(config);
        let trainer = Trainer::from_parts(model, optimizer, config, device);
        Ok((trainer.skipping_by(skip).taught_by(teacher), unused))
    }

    /// The vanilla model that the run distils, on `device`.
    pub(crate) fn teacher(
        &self,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Option<Teacher>, TrainError> {
        if config.distill == 0.0 {
            return Ok(None);
        }
        let model = self.checkpoint.load_model(device)?;
        Ok(Some(Teacher::new(model, config.distill)))
    }

    /// The weights on `device`, and the published tensors that the model does not use.
    fn load(&self, device: &Device) -> Result<(LanguageModel, HostTensors), TrainError> {
        let source = self.checkpoint.load_model(device)?;
        let LanguageModel::Vanilla(vanilla) = &source else {
            return Ok((source, self.checkpoint.unused()?));
        };
        if self.uptrain == Uptrain::Off {
            return Ok((source, self.checkpoint.unused()?));
        }
        let ModelConfig::Block(config) = self.model()? else {
            unreachable!("uptraining makes a block model")
        };
        let names = &self.checkpoint.config;
        let tensors = published_tensors(vanilla, names, Source::Values);
        let tensors = Uptrained { vanilla: &tensors, config: &config, method: self.uptrain };
        let origin = self.checkpoint.dir.display().to_string();
        let config = ModelConfig::Block(config.clone());
        Ok(load(config.init(0, device), &config, &tensors, &origin)?)
    }

    /// The record of this origin for the checkpoints of the run.
    pub(crate) fn lineage(&self, config: &TrainConfig) -> Lineage {
        let state = &self.checkpoint.state;
        let given = Path::new(&config.from);
        // adapters need the weights again, from any working folder
        let absolute = || self.checkpoint.dir.canonicalize().ok();
        let source = config.lora.is_some().then(absolute).flatten();
        Lineage {
            made_by: if self.uptrain == Uptrain::Off { "train".into() } else { "uptrain".into() },
            source: source.as_deref().unwrap_or(given).display().to_string(),
            sha256: self.checkpoint.weights_sha256.clone(),
            step: Some(state.step),
            tokens: Some(state.tokens),
            validation_loss: state.validation_loss,
            parent: state.lineage.clone().map(Box::new),
        }
    }
}
