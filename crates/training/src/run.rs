//! A run from its first step, or from its last checkpoint, to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use block_transformer_checkpoint::{Checkpoint, CheckpointError, Contents, RunFolder, State};
use block_transformer_datasets::{CorpusInfo, Packing, PreparedCorpus, Split, Window};
use block_transformer_text::Tokenizer;
use block_transformer_weights::HostTensors;
use block_transformer_zoo::{FamilyConfig, LanguageModel, ModelConfig, Precision};
use burn::module::Module;
use burn::tensor::{DType, Device};
use burn::train::TrainingComponents;

use crate::batch::num_tokens;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::events::{Events, to_usize};
use crate::metrics::{Metrics, MetricsRow};
use crate::schedule::Schedule;
use crate::speed::{RunEvent, Speed, StepProgress};
use crate::trainable::{Learned, StepOutput};
use crate::trainer::{Trainer, adamw};
use crate::update::StepResult;

/// Vocabularies are rounded up to a multiple of this value, with which matrix products are faster.
const VOCAB_MULTIPLE: usize = 64;
/// Number of last steps over which the final training loss is averaged.
const RECENT: usize = 20;

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether the run was interrupted before its last step.
    pub interrupted: bool,
    /// Mean training loss of the last 20 steps, in nats per token.
    pub train_loss: Option<f64>,
    /// The latest validation loss, in nats per token.
    pub validation_loss: Option<f64>,
    /// The lowest validation loss, with its step.
    pub best: Option<(u64, f64)>,
    /// Tokens per second in this process, padding not counted.
    pub tokens_per_second: Option<f64>,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
    /// The metrics of every step.
    pub metrics: Vec<MetricsRow>,
    /// The trained model, without autodiff.
    pub model: LanguageModel,
}

/// The configuration of `model` over the ids of `tokenizer`.
///
/// # Errors
/// When the sizes do not fit together.
pub fn model_config(model: &ModelConfig, tokenizer: &Tokenizer) -> Result<ModelConfig, TrainError> {
    let vocab = tokenizer.vocab_size().next_multiple_of(VOCAB_MULTIPLE);
    let config = model.clone().with_vocab_size(vocab);
    config.check()?;
    Ok(config)
}

/// Checks that a run can begin, or be resumed, in `config.out`. This is cheap: call it before a
/// corpus is prepared.
///
/// # Errors
/// When a new run finds a run in the folder, or a resumed run finds none, one without its
/// configuration or one that began with another configuration.
pub fn check_folder(config: &TrainConfig, resume: bool) -> Result<(), TrainError> {
    let folder = RunFolder::new(&config.out);
    let begun = folder.config_path();
    match (resume, folder.is_used()) {
        (false, true) => Err(TrainError::FolderInUse(config.out.clone())),
        (true, false) => Err(TrainError::NothingToResume(config.out.clone())),
        (true, true) if !begun.exists() => Err(TrainError::NoConfiguration(begun)),
        (true, true) => TrainConfig::read(&begun)?.check_resumes(config),
        (false, false) => Ok(()),
    }
}

/// A run that is ready to train.
pub struct TrainingRun {
    config: TrainConfig,
    folder: RunFolder,
    model: ModelConfig,
    tokenizer: Tokenizer,
    unused: HostTensors,
    train: Packing,
    validation: Packing,
    trainer: Trainer,
    metrics: Metrics,
    state: State,
    /// The last checkpointed step.
    saved: u64,
    speed: Speed,
    observer: Box<dyn FnMut(&RunEvent)>,
    skipped: Arc<[CheckpointError]>,
    interrupted: bool,
}

impl TrainingRun {
    /// Prepares to train `config` on `corpus`, in the folder `config.out`. With `resume`, the run
    /// in this folder continues from its newest checkpoint.
    ///
    /// # Errors
    /// When the configuration is invalid, the folder is in use, or a file cannot be read or written.
    pub fn open(
        config: &TrainConfig,
        corpus: &PreparedCorpus,
        resume: bool,
        device: &Device,
    ) -> Result<Self, TrainError> {
        config.check()?;
        check_folder(config, resume)?;
        if config.precision == Precision::Bf16 && !device.supports_dtype(DType::BF16) {
            let range = format!("f32 on the device {}, which has no bf16", config.device);
            return Err(TrainError::OutOfRange { key: "precision", value: "bf16".into(), range });
        }
        let tokenizer = corpus.tokenizer()?;
        let model = model_config(&config.model, &tokenizer)?;
        let packing = |split, seed| {
            let documents = corpus.split(split)?;
            Packing::new(documents, model.block_length(), config.context, seed)
                .map_err(|source| TrainError::Split { split, source })
        };
        let train = packing(Split::Train, Some(config.seed))?;
        let validation = packing(Split::Validation, None)?;
        let folder = RunFolder::new(&config.out);
        let found = resume && !folder.checkpoints().is_empty();
        let checkpoint = if found { Some(Checkpoint::open(&config.out)?) } else { None };
        folder.begin(&config.to_toml()?)?;
        let mut state = State {
            trained_context: Some(config.context),
            train: Some(serde_json::to_value(config)?),
            corpus: Some(serde_json::to_value(&corpus.info)?),
            ..State::default()
        };
        let (trainer, unused, skipped) = match checkpoint {
            None => (Trainer::new(&model, config, device), HostTensors::new(), Arc::default()),
            Some(checkpoint) => {
                let corpus_then = checkpoint.state.corpus.clone().unwrap_or_default();
                let corpus_then: Option<CorpusInfo> = serde_json::from_value(corpus_then).ok();
                if checkpoint.config != model || corpus_then.as_ref() != Some(&corpus.info) {
                    return Err(TrainError::OtherCorpus(checkpoint.dir));
                }
                let trainer = resumed(&checkpoint, config, device)?;
                folder.remove_after(checkpoint.state.step)?;
                let unused = checkpoint.unused()?;
                state = State {
                    trained_context: state.trained_context,
                    train: state.train,
                    corpus: state.corpus,
                    ..checkpoint.state
                };
                (trainer, unused, checkpoint.skipped)
            }
        };
        let metrics = Metrics::open(&folder, state.step)?;
        let saved = state.step;
        Ok(Self {
            config: config.clone(),
            folder,
            model,
            tokenizer,
            unused,
            train,
            validation,
            trainer,
            metrics,
            state,
            saved,
            speed: Speed::default(),
            observer: Box::new(|_| ()),
            skipped,
            interrupted: false,
        })
    }

    /// Calls `observer` after steps at the log interval and after validations, on the training
    /// thread.
    #[must_use]
    pub fn observe(self, observer: impl FnMut(&RunEvent) + 'static) -> Self {
        Self { observer: Box::new(observer), ..self }
    }

    /// Steps done: 0 unless the run was resumed from a checkpoint.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Damaged checkpoints that a resumed run skipped; it repeats their steps.
    pub fn skipped(&self) -> &[CheckpointError] {
        &self.skipped
    }

    /// Epochs done. An epoch is the steps between two validations.
    pub fn epochs_done(&self) -> usize {
        to_usize(self.state.step / self.config.validate_every)
    }

    pub(crate) fn epochs(&self) -> usize {
        to_usize(self.config.steps.div_ceil(self.config.validate_every))
    }

    pub(crate) fn config(&self) -> &TrainConfig {
        &self.config
    }

    pub(crate) fn block_length(&self) -> usize {
        self.model.block_length()
    }

    pub(crate) fn packings(&self) -> (&Packing, &Packing) {
        (&self.train, &self.validation)
    }

    pub(crate) fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Trains to the last step, or until an interruption or early stopping.
    pub(crate) fn train(
        &mut self,
        components: &mut TrainingComponents<Learned>,
    ) -> Result<(), TrainError> {
        let interrupter = components.interrupter.clone();
        let mut events = Events::new(&self.config, components);
        let mut stopped_early = false;
        while self.state.step < self.config.steps && !events.should_stop() && !stopped_early {
            stopped_early = self.train_step(&mut events)?;
        }
        self.interrupted = self.state.step < self.config.steps && events.should_stop();
        if !self.folder.checkpoint(self.state.step).exists() {
            self.checkpoint(false)?;
        }
        interrupter.error().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Runs one step with its validation and checkpoint. Returns whether early stopping ends the
    /// run.
    fn train_step(&mut self, events: &mut Events<'_>) -> Result<bool, TrainError> {
        let begun = Instant::now();
        let step = self.state.step + 1;
        let lr = Schedule::new(&self.config).rate(step);
        let micro_batches = self.windows();
        let tokens: u64 = micro_batches.iter().map(|windows| num_tokens(windows)).sum();
        let result = self.trainer.step(&micro_batches, lr);
        if !result.is_finite() {
            return Err(TrainError::NotFinite { step, result, saved: self.saved });
        }
        let StepResult { loss, grad_norm } = result;
        let seconds = begun.elapsed().as_secs_f64();
        self.speed.count(tokens, seconds);
        self.state.step = step;
        self.state.tokens += tokens;
        self.state.seconds += seconds;
        self.state.train_loss = Some(loss);
        events.step(step, StepOutput::new(loss, grad_norm, tokens as f64 / seconds), lr);
        let (steps, last) = (self.config.steps, step == self.config.steps);
        let (tokens, seconds) = (self.state.tokens, self.state.seconds);
        let mut row =
            MetricsRow { step, loss, lr, grad_norm, tokens, seconds, validation_loss: None };
        if step.is_multiple_of(self.config.log_every) || step == 1 || last {
            (self.observer)(&RunEvent::Step(StepProgress {
                metrics: row.clone(),
                steps,
                tokens_per_second: self.speed.rate(),
                remaining: self.speed.remaining(steps - step),
            }));
        }
        let validates = step.is_multiple_of(self.config.validate_every) || last;
        row.validation_loss = validates.then(|| self.validate());
        row.seconds = self.state.seconds;
        let lower = |loss: &f64| self.state.best.is_none_or(|(_, lowest)| *loss < lowest);
        let best = row.validation_loss.filter(lower);
        if let Some(loss) = best {
            self.state.best = Some((step, loss));
        }
        let output = row.validation_loss.map(|loss| StepOutput::new(loss, f64::NAN, f64::NAN));
        self.metrics.push(row)?;
        if best.is_some() || last || step.is_multiple_of(self.config.checkpoint_every) {
            self.checkpoint(best.is_some())?;
        }
        Ok(output.is_some_and(|output| events.validation(step, output)))
    }

    /// The windows of the next step, by micro-batch: a function of seed and step.
    fn windows(&self) -> Vec<Vec<Window>> {
        let k = self.config.accumulate as u64;
        let first = self.state.step * k;
        (first..first + k).map(|i| self.train.batch(i, self.config.batch)).collect()
    }

    fn validate(&mut self) -> f64 {
        let begun = Instant::now();
        let (windows, batch) = (self.config.validation_windows, self.config.batch);
        let loss = self.trainer.validate(&self.validation, windows, batch);
        self.state.seconds += begun.elapsed().as_secs_f64();
        self.state.validation_loss = Some(loss);
        (self.observer)(&RunEvent::Validation { step: self.state.step, loss });
        loss
    }

    fn checkpoint(&mut self, best: bool) -> Result<(), TrainError> {
        let step = self.state.step;
        self.metrics.sync()?;
        let contents = Contents {
            model: self.trainer.model(),
            config: &self.model,
            tokenizer: &self.tokenizer,
            optimizer: Some(self.trainer.optimizer()),
            state: &self.state,
            unused: &self.unused,
        };
        Checkpoint::write(&self.folder.checkpoint(step), &contents)?;
        self.saved = step;
        if best {
            self.folder.set_best(step)?;
        }
        Ok(self.folder.prune(self.config.keep)?)
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        Outcome {
            step: self.state.step,
            interrupted: self.interrupted,
            train_loss: self.metrics.recent_loss(RECENT),
            validation_loss: self.state.validation_loss,
            best: self.state.best,
            tokens_per_second: self.speed.rate(),
            checkpoint: self.folder.checkpoint(self.state.step),
            metrics: self.metrics.rows,
            model: self.trainer.model().valid(),
        }
    }
}

fn resumed(
    checkpoint: &Checkpoint,
    config: &TrainConfig,
    device: &Device,
) -> Result<Trainer, TrainError> {
    let device = device.clone().autodiff();
    let model = checkpoint.load_model(&device)?;
    let optimizer = checkpoint.load_optimizer(adamw(config))?;
    let optimizer = optimizer.ok_or_else(|| TrainError::NoOptimizer(checkpoint.dir.clone()))?;
    Ok(Trainer::from_parts(model, optimizer, config, device))
}
