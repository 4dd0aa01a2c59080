//! A run from its first step, or from its last checkpoint, to its end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use block_transformer_checkpoint::{Checkpoint, Contents, RunFolder, State};
use block_transformer_datasets::{
    CorpusInfo, DatasetError, Packing, PreparedCorpus, Split, Window,
};
use block_transformer_text::Tokenizer;
use block_transformer_weights::HostTensors;
use block_transformer_zoo::{FamilyConfig, ModelConfig};
use burn::tensor::Device;

use crate::metrics::{Metrics, Row};
use crate::{
    Progress, Reporter, Schedule, TrainConfig, TrainError, Trainer, figure, real_tokens, trainer,
};

/// Vocabularies are rounded up to a multiple of this, which matrix products like.
const VOCAB_MULTIPLE: usize = 64;
/// Steps of a process that its speed does not count: allocators and caches are cold.
const COLD_STEPS: u64 = 3;
/// Steps the final training loss is the mean of.
const RECENT: usize = 20;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether a signal stopped it before its last step.
    pub interrupted: bool,
    /// Mean training loss of the last 20 steps.
    pub train_loss: Option<f64>,
    /// The latest validation loss.
    pub validation_loss: Option<f64>,
    /// The lowest validation loss and its step.
    pub best: Option<(u64, f64)>,
    /// Loss of predicting validation tokens by their frequency.
    pub frequency_loss: f64,
    /// Real tokens a second of training in this process.
    pub tokens_per_second: Option<f64>,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
    /// The model as trained, on the plain device.
    pub model: block_transformer_zoo::LanguageModel,
    /// Its shape.
    pub config: ModelConfig,
}

/// The preset's model over the ids of `tokenizer`.
///
/// # Errors
/// When there is no such preset.
pub fn model_config(preset: &str, tokenizer: &Tokenizer) -> Result<ModelConfig, TrainError> {
    let vocab = tokenizer.vocab_size().next_multiple_of(VOCAB_MULTIPLE);
    let config = block_transformer_zoo::preset(preset)?.model.clone().with_vocab_size(vocab);
    config.check()?;
    Ok(config)
}

/// Whether a run can begin, or be resumed, in `config.out`; cheap enough to ask before a corpus is
/// prepared.
///
/// # Errors
/// When the folder holds another run, no run, or one begun with another configuration.
pub fn check_folder(config: &TrainConfig, resume: bool) -> Result<(), TrainError> {
    let folder = RunFolder::new(&config.out);
    match (resume, folder.is_used()) {
        (false, true) => Err(TrainError::damaged(
            &config.out,
            "the folder holds a run already; go on with it by --resume, or give another --out",
        )),
        (true, false) => {
            Err(TrainError::damaged(&config.out, "there is no run to resume; leave out --resume"))
        }
        (true, true) => TrainConfig::read(&folder.config_path())?.check_resumes(config),
        (false, false) => Ok(()),
    }
}

/// Trains `config` on `corpus`, in `config.out`; `stop` ends it after the step at hand, with a
/// checkpoint.
///
/// # Errors
/// When a choice cannot be, the folder is taken, the loss is not finite, or the disk refuses.
pub fn run(
    config: &TrainConfig,
    corpus: &PreparedCorpus,
    resume: bool,
    device: &Device,
    stop: &AtomicBool,
    reporter: &mut dyn Reporter,
) -> Result<Outcome, TrainError> {
    config.check()?;
    check_folder(config, resume)?;
    let mut run = Run::open(config, corpus, resume, device, reporter)?;
    let mut speed = Speed::default();
    while run.state.step < config.steps && !stop.load(Ordering::SeqCst) {
        run = run.step(&mut speed, reporter)?;
    }
    let interrupted = run.state.step < config.steps;
    let last = run.folder.checkpoint(run.state.step);
    if !last.exists() {
        run.checkpoint(false)?;
    }
    let title = format!("{} on {}", config.preset, corpus.info.name);
    figure::write(&run.folder, &title, &run.metrics.rows, corpus.info.frequency_loss)?;
    Ok(Outcome {
        step: run.state.step,
        interrupted,
        train_loss: run.metrics.recent_loss(RECENT),
        validation_loss: run.state.validation_loss,
        best: run.state.best,
        frequency_loss: corpus.info.frequency_loss,
        tokens_per_second: speed.rate(),
        checkpoint: last,
        model: burn::module::Module::valid(run.trainer.model()),
        config: run.model,
    })
}

struct Run<'a> {
    config: &'a TrainConfig,
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
}

impl<'a> Run<'a> {
    fn open(
        config: &'a TrainConfig,
        corpus: &PreparedCorpus,
        resume: bool,
        device: &Device,
        reporter: &mut dyn Reporter,
    ) -> Result<Self, TrainError> {
        let tokenizer = corpus.tokenizer()?;
        let model = model_config(&config.preset, &tokenizer)?;
        let length = model.block_length();
        let packing = |split, seed| {
            let documents = corpus.split(split)?;
            Packing::new(documents, length, config.context, seed).map_err(|e| match e {
                DatasetError::LessThanOneWindow { .. } => {
                    TrainError::Choice(format!("{split} split: {e}; lower --context"))
                }
                other => other.into(),
            })
        };
        let train = packing(Split::Train, Some(config.seed))?;
        let validation = packing(Split::Validation, None)?;
        let folder = RunFolder::new(&config.out);
        let found = resume && !folder.checkpoints().is_empty();
        let checkpoint = if found { Some(Checkpoint::open(&config.out)?) } else { None };
        folder.begin(&config.to_toml())?;
        let mut trainer = Trainer::new(&model, config, device);
        let mut unused = HostTensors::new();
        let json = |e: serde_json::Error| TrainError::Choice(e.to_string());
        let mut state = State {
            trained_context: Some(config.context),
            train: Some(serde_json::to_value(config).map_err(json)?),
            corpus: Some(serde_json::to_value(&corpus.info).map_err(json)?),
            ..State::new()
        };
        if let Some(checkpoint) = &checkpoint {
            for error in checkpoint.skipped.iter() {
                reporter.note(&format!("warning: skipping a damaged checkpoint: {error}"));
            }
            let of = checkpoint.state.corpus.clone().unwrap_or_default();
            let of: Option<CorpusInfo> = serde_json::from_value(of).ok();
            if checkpoint.config != model || of.as_ref() != Some(&corpus.info) {
                return Err(TrainError::Choice(format!(
                    "--resume: {} was trained on another corpus or tokenizer than is prepared now; \
                     prepare the old one again, or begin another run with another --out",
                    checkpoint.dir.display()
                )));
            }
            state = State {
                trained_context: state.trained_context,
                train: state.train,
                corpus: state.corpus,
                versions: state.versions,
                ..checkpoint.state.clone()
            };
            trainer = resumed(checkpoint, config, device)?;
            unused = checkpoint.unused()?;
            folder.remove_after(state.step)?;
            reporter.note(&format!("resuming after step {} of {}", state.step, config.steps));
        } else if resume {
            reporter.note("the run has no checkpoint yet: starting at its first step");
        }
        let metrics = Metrics::open(&folder, state.step)?;
        let saved = state.step;
        Ok(Self {
            config,
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
        })
    }

    fn step(mut self, speed: &mut Speed, reporter: &mut dyn Reporter) -> Result<Self, TrainError> {
        let config = self.config;
        let begun = Instant::now();
        let number = self.state.step + 1;
        let lr = Schedule::new(config).rate(number);
        let micro_batches = self.windows();
        let tokens: u64 = micro_batches.iter().map(|windows| real_tokens(windows)).sum();
        let (trainer, result) = self.trainer.step(&micro_batches, lr);
        self.trainer = trainer;
        let what = if result.loss.is_finite() { "gradient norm" } else { "loss" };
        if !result.loss.is_finite() || !result.grad_norm.is_finite() {
            return Err(TrainError::NotFinite { step: number, what, good: self.saved });
        }
        let spent = begun.elapsed().as_secs_f64();
        speed.count(tokens, spent);
        self.state.step = number;
        self.state.tokens += tokens;
        self.state.seconds += spent;
        self.state.train_loss = Some(result.loss);
        let last = number == config.steps;
        if number.is_multiple_of(config.log_every) || number == 1 || last {
            reporter.step(&Progress {
                step: number,
                steps: config.steps,
                loss: result.loss,
                lr,
                grad_norm: result.grad_norm,
                tokens_per_second: speed.rate(),
                elapsed: self.state.seconds,
                remaining: speed.remaining(config.steps - number),
            });
        }
        let validate = number.is_multiple_of(config.validate_every) || last;
        let validation_loss = validate.then(|| self.validate(reporter));
        let best = validation_loss
            .is_some_and(|loss| self.state.best.is_none_or(|(_, lowest)| loss < lowest));
        if let (true, Some(loss)) = (best, validation_loss) {
            self.state.best = Some((number, loss));
        }
        self.metrics.push(Row {
            step: number,
            loss: result.loss,
            lr,
            grad_norm: result.grad_norm,
            tokens: self.state.tokens,
            seconds: self.state.seconds,
            validation_loss,
        })?;
        if best || last || number.is_multiple_of(config.checkpoint_every) {
            self.checkpoint(best)?;
        }
        Ok(self)
    }

    /// The windows of the next step: a function of seed and step.
    fn windows(&self) -> Vec<Vec<Window>> {
        let k = self.config.accumulate as u64;
        let first = self.state.step * k;
        (first..first + k).map(|i| self.train.batch(i, self.config.batch)).collect()
    }

    fn validate(&mut self, reporter: &mut dyn Reporter) -> f64 {
        let begun = Instant::now();
        let (windows, batch) = (self.config.validation_windows, self.config.batch);
        let loss = self.trainer.validate(&self.validation, windows, batch);
        self.state.seconds += begun.elapsed().as_secs_f64();
        self.state.validation_loss = Some(loss);
        reporter.validation(self.state.step, loss);
        loss
    }

    fn checkpoint(&mut self, best: bool) -> Result<(), TrainError> {
        let step = self.state.step;
        self.metrics.sync()?;
        let contents = Contents {
            model: &self.trainer.model,
            config: &self.model,
            tokenizer: &self.tokenizer,
            optimizer: Some(&self.trainer.optimizer),
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
}

fn resumed(
    checkpoint: &Checkpoint,
    config: &TrainConfig,
    device: &Device,
) -> Result<Trainer, TrainError> {
    let device = device.clone().autodiff();
    let model = checkpoint.load_model(&device)?;
    let optimizer = checkpoint.load_optimizer(trainer::optimizer(config))?.ok_or_else(|| {
        TrainError::damaged(&checkpoint.dir, "imported weights, no optimizer state to resume from")
    })?;
    let length = checkpoint.config.block_length();
    Ok(Trainer::from_parts(model, optimizer, length, config.clip, device))
}

/// Speed of this process.
#[derive(Default)]
struct Speed {
    steps: u64,
    tokens: u64,
    seconds: f64,
}

impl Speed {
    fn count(&mut self, tokens: u64, seconds: f64) {
        self.steps += 1;
        if self.steps > COLD_STEPS {
            self.tokens += tokens;
            self.seconds += seconds;
        }
    }

    fn rate(&self) -> Option<f64> {
        (self.steps > COLD_STEPS).then(|| self.tokens as f64 / self.seconds)
    }

    fn remaining(&self, steps: u64) -> Option<f64> {
        let counted = self.steps.checked_sub(COLD_STEPS).filter(|&counted| counted > 0)?;
        Some(self.seconds / counted as f64 * steps as f64)
    }
}
