//! A run from its first step, or from its last checkpoint, to its end.

use std::path::PathBuf;
use std::sync::Arc;

use block_transformer_checkpoint::{CheckpointError, RunFolder, State};
use block_transformer_collectives::{Alone, Collective, NoCollectives, check_same};
use block_transformer_cost::{Mfu, TrainingMemory};
use block_transformer_datasets::{DatasetError, MixedWindows, Mixture, Split};
use block_transformer_text::Tokenizer;
use block_transformer_weights::HostTensors;
use block_transformer_zoo::{FamilyConfig, LanguageModel, ModelConfig};
use burn::module::Module;
use burn::tensor::Device;

use crate::config::TrainConfig;
use crate::error::{EvaluationError, TrainError};
use crate::events::to_usize;
use crate::found::{checkpoint_of, data_of, is_same_data, newest, resumed};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::reading::ReadPolicy;
use crate::ready::{check_folder, check_formats, run_model};
use crate::replicas::Replicas;
use crate::row::{EvaluationScore, MetricsRow};
use crate::speed::{RunEvent, Speed};
use crate::start::Origin;
use crate::trainer::Trainer;
use crate::writer::Writer;

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
    /// Steps that changed nothing, because their loss or gradient norm was not finite.
    pub skipped_steps: usize,
    /// The metrics of every step.
    pub metrics: Vec<MetricsRow>,
    /// The trained model, without autodiff.
    pub model: LanguageModel,
}

/// Scores a model that is not on an autodiff device.
type Evaluate = dyn FnMut(&LanguageModel) -> Result<Vec<EvaluationScore>, EvaluationError>;

/// A run that is ready to train.
pub struct TrainingRun {
    pub(crate) config: TrainConfig,
    pub(crate) folder: RunFolder,
    pub(crate) model: ModelConfig,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) unused: HostTensors,
    pub(crate) train: MixedWindows,
    pub(crate) validation: MixedWindows,
    /// The names of the corpora of a mixture.
    pub(crate) sources: Vec<String>,
    pub(crate) replicas: Replicas,
    /// This process among those of the run.
    pub(crate) ranks: Arc<dyn Collective>,
    /// Whether this process is rank 0, which validates, evaluates and writes.
    pub(crate) leads: bool,
    pub(crate) metrics: Metrics,
    pub(crate) state: State,
    pub(crate) writer: Writer,
    pub(crate) speed: Speed,
    pub(crate) observer: Box<dyn FnMut(&RunEvent)>,
    pub(crate) evaluator: Option<Box<Evaluate>>,
    skipped: Arc<[CheckpointError]>,
    pub(crate) interrupted: bool,
    pub(crate) reading: ReadPolicy,
    pub(crate) mfu: Option<Mfu>,
    pub(crate) queue: Queue,
    /// Whether a checkpoint at the interval was put off, because its step was skipped.
    pub(crate) checkpoint_due: bool,
}

impl TrainingRun {
    /// Prepares to train `config` on `corpus`, a prepared corpus or a mixture of several, in the folder `config.out`. With `resume`, the run
    /// in this folder continues from its newest checkpoint.
    ///
    /// # Errors
    /// When the configuration is invalid, the folder is in use, a device has too little memory, or a file
    /// cannot be read or written.
    pub fn open(
        config: &TrainConfig,
        corpus: impl Into<Mixture>,
        resume: bool,
        device: &Device,
    ) -> Result<Self, TrainError> {
        Self::open_on(config, corpus, resume, device, &[], Arc::new(Alone))
    }

    /// [`open`](Self::open) with replicas of the model on `others`, which share each step with the
    /// model on `device`, and with the other processes of `ranks`, which open the same run with the same
    /// number of devices. The first device of rank 0 writes the checkpoints and all other files; the other ranks
    /// read them, so the folder must be the same for all.
    ///
    /// # Errors
    /// As [`open`](Self::open), when a step has too few sequences for the devices, and when the ranks differ. A rank
    /// with an error that is not [of all ranks](TrainError::is_of_all_ranks) must
    /// [abort](Collective::abort), here and in [`launch`](Self::launch), because the others wait for it.
    pub fn open_on(
        config: &TrainConfig,
        corpus: impl Into<Mixture>,
        resume: bool,
        device: &Device,
        others: &[Device],
        ranks: Arc<dyn Collective>,
    ) -> Result<Self, TrainError> {
        let leads = ranks.rank() == 0;
        let config = &TrainConfig { processes: ranks.size(), ..config.clone() };
        config.check()?;
        config.check_replicas(ranks.size() * (1 + others.len()))?;
        if leads {
            check_folder(config, resume)?;
        }
        check_formats(config, std::iter::once(device).chain(others))?;
        let corpus: Mixture = corpus.into();
        let tokenizer = corpus.first().tokenizer()?;
        let model = run_model(config, &tokenizer)?;
        let packing = |kind, split, seed| {
            let windows = corpus.windows(kind, split, model.block_length(), config.context, seed);
            windows.map_err(|source| match source {
                source @ DatasetError::LessThanOneWindow { .. } => {
                    TrainError::Split { split, source }
                }
                source => source.into(),
            })
        };
        let train = packing(config.windows, Split::Train, Some(config.seed))?;
        let validation = packing(config.validation, Split::Validation, None)?;
        config.check_memory(&model)?;
        let folder = RunFolder::new(&config.out);
        let checkpoint = newest(&folder, config, resume, &*ranks)?;
        // adapters and a teacher need the origin again when a run is resumed
        let needs_origin = checkpoint.is_none() || config.lora.is_some() || config.distill > 0.0;
        let origin = if needs_origin { Origin::open(config)? } else { None };
        if let Some(origin) = &origin {
            origin.check_tokenizer(&tokenizer)?;
        }
        check_same(
            &*ranks,
            &[
                ("the tokenizer", format!("checksum {:08x}", tokenizer.fingerprint()?)),
                (
                    "the data",
                    format!(
                        "checksum {:08x}",
                        crc32c::crc32c(data_of(&corpus)?.to_string().as_bytes())
                    ),
                ),
                ("the model", model.to_json()),
                ("the checkpoint", checkpoint_of(checkpoint.as_ref())),
                (
                    "the weights to begin with",
                    origin
                        .as_ref()
                        .map_or("none".into(), |origin| origin.checkpoint().weights_sha256.clone()),
                ),
            ],
        )?;
        if leads {
            folder.begin(&config.to_toml()?)?;
        }
        let mut state = State {
            trained_context: Some(config.context),
            train: Some(serde_json::to_value(config)?),
            corpus: Some(data_of(&corpus)?),
            lineage: origin.as_ref().map(|origin| origin.lineage(config)),
            lora: config.lora.clone(),
            ..State::default()
        };
        let (mut unused, mut skipped) = (HostTensors::new(), Arc::default());
        let (first, others) = match checkpoint {
            None => {
                let mut trainer = |device: &Device| match &origin {
                    None => Ok(Trainer::new(&model, config, device)),
                    Some(origin) => {
                        let (trainer, left) = origin.trainer(config, device)?;
                        unused = left;
                        Ok::<_, TrainError>(trainer)
                    }
                };
                let first = trainer(device)?;
                (first, others.iter().map(trainer).collect::<Result<Vec<_>, _>>()?)
            }
            Some(checkpoint) => {
                if let Some(origin) = &origin {
                    origin.check_same(checkpoint.state.lineage.as_ref())?;
                }
                let data_then = checkpoint.state.corpus.clone().unwrap_or_default();
                if checkpoint.config != model || !is_same_data(data_then, &corpus) {
                    return Err(TrainError::OtherCorpus(checkpoint.dir));
                }
                let trainer = |device: &Device| {
                    let trainer = resumed(&checkpoint, config, device)?;
                    let teacher = origin.as_ref().map(|origin| origin.teacher(config, device));
                    Ok::<_, TrainError>(trainer.taught_by(teacher.transpose()?.flatten()))
                };
                let first = trainer(device)?;
                let others = others.iter().map(trainer).collect::<Result<Vec<_>, _>>()?;
                unused = checkpoint.unused()?;
                skipped = checkpoint.skipped.clone();
                state = State {
                    trained_context: state.trained_context,
                    train: state.train,
                    corpus: state.corpus,
                    ..checkpoint.state
                };
                (first, others)
            }
        };
        let metrics = match leads {
            true => Metrics::open(&folder, state.step, config.eval_every > 0)?,
            false => Metrics::unwritten(),
        };
        let waits = config.waits_for_checkpoints(&model);
        let writer = Writer::new(folder.clone(), config.keep, state.step, waits);
        Ok(Self {
            config: config.clone(),
            folder,
            model,
            tokenizer,
            unused,
            train,
            validation,
            sources: corpus.infos().iter().map(|info| info.name.clone()).collect(),
            leads,
            replicas: Replicas::new(first, others, config.all_devices(), &ranks),
            ranks,
            metrics,
            state,
            writer,
            speed: Speed::default(),
            observer: Box::new(|_| ()),
            evaluator: None,
            skipped,
            interrupted: false,
            reading: ReadPolicy::of(config),
            mfu: None,
            queue: Queue::default(),
            checkpoint_due: false,
        })
    }

    /// Calls `observer` after steps at the log interval and after validations, on the training
    /// thread.
    #[must_use]
    pub fn observe(self, observer: impl FnMut(&RunEvent) + 'static) -> Self {
        Self { observer: Box::new(observer), ..self }
    }

    /// Evaluates the model by `evaluate` every `eval_every` steps, and after the last step. The model is a copy
    /// without autodiff, and its evaluation changes no bit of the training. The scores are written to the
    /// metrics of the step.
    #[must_use]
    pub fn evaluate(
        self,
        evaluate: impl FnMut(&LanguageModel) -> Result<Vec<EvaluationScore>, EvaluationError> + 'static,
    ) -> Self {
        Self { evaluator: Some(Box::new(evaluate)), ..self }
    }

    /// Reads losses and gradient norms from the device by `reading`, instead of the policy for the
    /// devices of the configuration. The run ends with the same weights; on devices without f64, they
    /// differ by the rounding of the clip factor.
    #[must_use]
    pub fn reading(self, reading: ReadPolicy) -> Self {
        Self { reading, ..self }
    }

    /// Reports the share of `peak`, the FLOP/s of all devices together, that the arithmetic of the model
    /// uses.
    #[must_use]
    pub fn peak(self, peak: Option<f64>) -> Self {
        let mfu = peak.map(|peak| Mfu::new(&self.model, self.config.context, peak));
        Self { mfu, ..self }
    }

    /// The memory that the formula predicts for each device, at the moment when a step holds most.
    pub fn memory(&self) -> TrainingMemory {
        TrainingMemory::new(&self.model, self.config.memory_shape())
    }

    /// Bytes of the copy that a checkpoint is written from, and whether training waits until it is written.
    pub fn checkpoint_copy(&self) -> (f64, bool) {
        let state = TrainingMemory::state(&self.model, self.config.optimizer);
        (state, self.config.waits_for_checkpoints(&self.model))
    }

    /// The largest micro-batch of a device of `memory` bytes with which a step fits into
    /// [what tensors can fill](block_transformer_cost::Holding::usable) by the formula; `None` if not even one sequence fits.
    pub fn largest_batch(&self, memory: u64) -> Option<usize> {
        let most = TrainConfig::MAX_BATCH_TOKENS / self.config.context;
        let shape = self.config.memory_shape();
        let bytes = shape.holding.usable(memory as f64);
        TrainingMemory::largest_batch(&self.model, shape, bytes, most)
    }

    /// Why the gradients of several devices are summed in the memory of the process; `None` if the
    /// collectives of the devices sum them.
    pub fn no_collectives(&self) -> Option<&NoCollectives> {
        self.replicas.no_collectives()
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

    pub(crate) fn windows_of_splits(&self) -> (&MixedWindows, &MixedWindows) {
        (&self.train, &self.validation)
    }

    pub(crate) fn trainer(&self) -> &Trainer {
        self.replicas.first()
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        let model = self.trainer().model().valid().materialize();
        Outcome {
            step: self.state.step,
            interrupted: self.interrupted,
            train_loss: self.metrics.recent_loss(RECENT),
            validation_loss: self.state.validation_loss,
            best: self.state.best,
            tokens_per_second: self.speed.rate(),
            checkpoint: self.folder.checkpoint(self.state.step),
            skipped_steps: self.metrics.rows.iter().filter(|row| row.skipped).count(),
            metrics: self.metrics.rows,
            model,
        }
    }
}
