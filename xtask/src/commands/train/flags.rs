//! Flags of `train` that are keys of its configuration, and its errors in terms of these flags.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow, bail};
use block_transformer_collectives::Wire;
use block_transformer_cost::OptimizerKind;
use block_transformer_datasets::{Share, TokenizerChoice, WindowKind};
use block_transformer_device::DeviceName;
use block_transformer_training::{TrainConfig, TrainError, Uptrain};
use block_transformer_zoo::family::Lora;
use block_transformer_zoo::{ModelConfig, Precision};
use serde::Serialize;

use crate::commands::prepare::with_flags;
use crate::counts;

/// Flags that are keys of the configuration. Flags that are not given are left out of the TOML.
#[derive(clap::Args, Serialize)]
pub(in crate::commands) struct Flags {
    /// Preset of the model and its hyper-parameters; the command `presets` lists them [default: small-block; with
    /// --from, the preset of the weights' shape, or that of the run that made them]
    #[arg(long)]
    pub preset: Option<String>,
    /// Recipe, text file, .jsonl file, folder, Megatron .idx, or prepared folder [default, inside this
    /// project only: dependencies]
    #[arg(long)]
    corpus: Option<String>,
    /// Windows of training: `documents`, which start at block boundaries after a random padding, or `contiguous`, cut
    /// from the stream of tokens without padding [default: documents]
    #[arg(long, value_name = "KIND")]
    windows: Option<WindowKind>,
    /// Windows of validation, whatever those of training are; contiguous windows are the same for every block length
    /// [default: documents]
    #[arg(long, value_name = "KIND")]
    validation: Option<WindowKind>,
    /// Folder of the run [default: runs/PRESET]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Device to compute on [default: flex]
    #[arg(long, value_name = "NAME", value_parser = crate::device::parser())]
    device: Option<DeviceName>,
    /// Devices that share each step, each with the whole model, such as cuda:0,cuda:1
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = crate::device::parser())]
    #[arg(conflicts_with = "device")]
    devices: Option<Vec<DeviceName>>,
    /// Format of the operands of matrix products; everything else is f32 [default: f32]
    #[arg(long, value_name = "FORMAT", value_parser = crate::device::training_precision())]
    precision: Option<Precision>,
    /// Compute the activations of each layer again in the backward pass instead of keeping them: less memory, about
    /// a third more arithmetic, the same results
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true)]
    recompute: Option<bool>,
    /// Format in which gradients travel between the processes of an MPI job: f32 or bf16 [default: f32]
    #[arg(long, value_name = "FORMAT", help_heading = "Several machines")]
    wire: Option<Wire>,
    /// Send gradients to the other processes while others are still computed [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true)]
    #[arg(help_heading = "Several machines")]
    overlap: Option<bool>,
    /// Steps between comparisons of the weights of all processes; 0 for none [default: 100]
    #[arg(long, value_name = "N", help_heading = "Several machines")]
    compare_every: Option<u32>,
    /// Fail unless a killed and resumed run will end with the same bits as an uninterrupted one; on flex and ndarray
    /// it always does
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", require_equals = true)]
    deterministic: Option<bool>,
    /// Seed of the initial weights and of the order of windows [default: 0]
    #[arg(long, value_name = "N", value_parser = counts::toml_integer())]
    seed: Option<u64>,
    /// Optimizer steps
    #[arg(long, value_name = "N", help_heading = "Optimization", value_parser = counts::toml_integer())]
    steps: Option<u64>,
    /// Sequences per micro-batch
    #[arg(long, value_name = "B", help_heading = "Optimization", value_parser = counts::up_to_most())]
    batch: Option<usize>,
    /// Micro-batches per step; their gradients are averaged [default: 1]
    #[arg(long, value_name = "K", help_heading = "Optimization", value_parser = counts::up_to_most())]
    accumulate: Option<usize>,
    /// Tokens per sequence
    #[arg(long, value_name = "T", help_heading = "Optimization", value_parser = counts::up_to_most())]
    context: Option<usize>,
    /// Optimizer: `adamw`, or `muon` for the matrices inside the stacks and AdamW for the rest; the other flags keep
    /// their meaning [default: adamw]
    #[arg(long, value_name = "NAME", help_heading = "Optimization")]
    optimizer: Option<OptimizerKind>,
    /// Peak learning rate
    #[arg(long, help_heading = "Optimization")]
    lr: Option<f64>,
    /// Learning rate at the end, as a fraction of the peak [default: 0.1]
    #[arg(long, value_name = "FRACTION", help_heading = "Optimization")]
    lr_end: Option<f64>,
    /// Steps of linear warm-up
    #[arg(long, value_name = "N", help_heading = "Optimization", value_parser = counts::toml_integer())]
    warmup: Option<u64>,
    /// AdamW's decay of the first moment [default: 0.9]
    #[arg(long, help_heading = "Optimization")]
    beta1: Option<f64>,
    /// AdamW's decay of the second moment [default: 0.95]
    #[arg(long, help_heading = "Optimization")]
    beta2: Option<f64>,
    /// AdamW's epsilon [default: 1e-8]
    #[arg(long, help_heading = "Optimization")]
    epsilon: Option<f64>,
    /// AdamW's weight decay [default: 0.1]
    #[arg(long, help_heading = "Optimization")]
    weight_decay: Option<f64>,
    /// Largest global norm of the gradient; a larger one is scaled down [default: 1]
    #[arg(long, value_name = "NORM", help_heading = "Optimization")]
    clip: Option<f64>,
    /// Steps between validations
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = counts::toml_integer())]
    validate_every: Option<u64>,
    /// Validation windows, spread evenly over the validation split [default: 32]
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = counts::toml_integer())]
    validation_windows: Option<u64>,
    /// Steps between checkpoints; the one with the lowest validation loss is written as well
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = counts::toml_integer())]
    checkpoint_every: Option<u64>,
    /// Newest checkpoints that are kept besides the best [default: 3]
    #[arg(long, value_name = "K", help_heading = "Output", value_parser = counts::up_to_most())]
    keep: Option<usize>,
    /// Steps between evaluations on --eval-tasks; their scores are written to the metrics [default: 0, none]
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = counts::toml_integer())]
    eval_every: Option<u64>,
    /// Tasks of these evaluations, separated by commas: names, or TOML files of your own tasks, as for `eval`
    #[arg(long, value_name = "TASKS", help_heading = "Output", value_delimiter = ',')]
    eval_tasks: Option<Vec<String>>,
    /// Evaluate only the first K items of each task [default: 0, all]
    #[arg(long, value_name = "K", help_heading = "Output")]
    eval_limit: Option<u32>,
    /// Folder of task files [default: data/eval; missing files are downloaded to it if possible]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    eval_data: Option<PathBuf>,
    /// Steps between printed lines
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = counts::toml_integer())]
    log_every: Option<u64>,
    /// Begin with the weights of this checkpoint or run: or, by their names, of published weights or a repository on
    /// the hub, which are imported first. The model and the tokenizer are those of the weights, whatever the preset;
    /// the preset gives the other defaults
    #[arg(long, value_name = "CHECKPOINT|NAME", help_heading = "Given weights")]
    pub from: Option<String>,
    /// Freeze the weights of --from and train adapters of this rank: RANK, or RANK:PARTS with the parts, joined by +,
    /// of stacks, attention, mlp, tables, projections and all [default parts: stacks]
    #[arg(long, value_name = "RANK[:PARTS]", help_heading = "Given weights")]
    lora: Option<Lora>,
    #[arg(skip)]
    pub uptrain: Option<Uptrain>,
    #[arg(skip)]
    pub distill: Option<f64>,
    #[arg(skip)]
    pub model: Option<ModelConfig>,
    /// Set together with `corpus`: one of them replaces the other.
    #[arg(skip)]
    pub mixture: Option<Vec<Share>>,
    #[arg(skip)]
    pub tokenizer: Option<TokenizerChoice>,
}

impl Flags {
    /// Lets a given `--corpus` replace the mixture of a configuration file, and `shares` its corpus.
    pub(super) fn settle_data(&mut self, shares: Vec<Share>) -> Result<()> {
        if let (Some(corpus), Some(share)) = (&self.corpus, shares.first()) {
            bail!("--data {share}: --corpus {corpus} is given as well; give one of them");
        }
        if self.corpus.is_some() {
            self.mixture = Some(Vec::new());
        } else if !shares.is_empty() {
            (self.corpus, self.mixture) = (Some(String::new()), Some(shares));
        }
        Ok(())
    }

    /// Lets a given `--device` replace the devices of a configuration file.
    pub(super) fn settle_devices(&mut self) {
        if self.device.is_some() {
            self.devices = Some(Vec::new());
        }
    }
}

/// The origin of the keys of a configuration, for the remedies of errors.
pub(super) struct Origin {
    given: serde_json::Value,
    file: Option<PathBuf>,
    /// Whether the file is the configuration that a resumed run began with.
    pub is_resumed: bool,
}

impl Origin {
    /// `file` is the file from which the keys without a flag were read, if any.
    pub(super) fn new(flags: &Flags, file: Option<&Path>) -> Result<Self> {
        Ok(Self {
            given: serde_json::to_value(flags)?,
            file: file.map(Into::into),
            is_resumed: false,
        })
    }

    /// Returns whether the flag of `key` was given.
    fn is_given(&self, key: &str) -> bool {
        !self.given[key].is_null()
    }

    /// The `model` table of the file that the user wrote, if it gives the model.
    pub(super) fn table_of_model(&self, config: &TrainConfig) -> Option<String> {
        let file = self.file.as_deref().filter(|_| !self.is_resumed)?;
        let has_model = TrainConfig::has_model(file, &config.preset).unwrap_or(false);
        has_model.then(|| format!("{}: [model]", file.display()))
    }

    /// Returns whether the model is not that of the preset.
    fn has_own_model(&self, config: &TrainConfig) -> bool {
        let preset = TrainConfig::from_preset(&config.preset);
        self.file.is_some() && preset.is_ok_and(|preset| preset.model != config.model)
    }

    /// The flag or the file that the model comes from, with its value.
    fn of_model(&self, config: &TrainConfig) -> String {
        match &self.file {
            Some(file) if self.has_own_model(config) => format!("{}: [model]", file.display()),
            _ => format!("{} {}", self.of("preset"), config.preset),
        }
    }

    /// The flag of `key` if it was given, otherwise the file that has the key.
    pub(super) fn of(&self, key: &str) -> String {
        match &self.file {
            Some(file) if !self.is_given(key) => format!("{}: {key} =", file.display()),
            _ => flag(key),
        }
    }

    /// Adds to an error about the memory of a run the flag or the file that remedies it.
    pub(super) fn of_memory(&self, error: TrainError, config: &TrainConfig) -> Error {
        let (place, remedy) = match &error {
            TrainError::TooLarge { largest: Some(largest), .. } => {
                let again = if config.recompute { "" } else { ", or --recompute" };
                let remedy = format!("--batch {largest} and a larger --accumulate{again}");
                (format!("{} {}", self.of("batch"), config.batch), remedy)
            }
            TrainError::TooLarge { .. } => (self.of_model(config), "--preset, --context".into()),
            _ => return self.reword(error),
        };
        anyhow!("{place}: {error} ({remedy})")
    }

    /// Rewords `error` with the flags of `train` as its remedies.
    pub(super) fn reword(&self, error: TrainError) -> Error {
        match error {
            TrainError::OutOfRange { key: key @ "deterministic", value, range } => anyhow!(
                "{} {value}: must be {range}; build with the feature `cuda-without-autotune` in place of `cuda`",
                self.of(key)
            ),
            // the model is set in the file only; there are no flags for it
            TrainError::OutOfRange { key, value, range } if !key.starts_with("model.") => {
                anyhow!("{} {value}: must be {range}", self.of(key))
            }
            TrainError::Changed { key, then, now } if self.is_given(&key) => anyhow!(
                "--resume: {} {now}: the run began with {then}; leave the flag out, or begin another run with \
                 another --out",
                flag(&key)
            ),
            TrainError::Changed { key, then, now } => match &self.file {
                Some(file) => anyhow!(
                    "{}: {key} is {now}, but the run began with {then}; leave --config out, or begin \
                     another run with another --out",
                    file.display()
                ),
                None => TrainError::Changed { key, then, now }.into(),
            },
            TrainError::OutOfMemory { batch, smaller, recompute, .. } => {
                let again = if recompute { "" } else { ", or --recompute" };
                let remedy = match smaller {
                    Some(smaller) => format!(
                        "begin another run with --batch {smaller} and a larger --accumulate{again}"
                    ),
                    None => format!("use a smaller --context, another --device{again}"),
                };
                let cause = Error::from(error);
                cause.context(format!("{} {batch}: {remedy}", self.of("batch")))
            }
            TrainError::FolderInUse(path) => anyhow!(
                "{} {}: the folder holds a run already; continue it with --resume, or give another \
                 --out",
                self.of("out"),
                path.display()
            ),
            TrainError::NothingToResume(path) => anyhow!(
                "{} {}: there is no run to resume; leave out --resume, or replace it with \
                 --resume-or-start",
                self.of("out"),
                path.display()
            ),
            TrainError::OtherCorpus(path) => anyhow!(
                "--resume: {} was trained on a different corpus or tokenizer from the prepared one; \
                 prepare the old one again, or begin another run with another --out",
                path.display()
            ),
            TrainError::OtherTokenizer { .. } => anyhow!(
                "{}: {error}; leave --corpus unprepared, so that it is tokenized with the tokenizer of the weights",
                self.of("from")
            ),
            TrainError::NotVanilla(_) => anyhow!("{}: {error}", self.of("from")),
            TrainError::Split { split, source } => {
                with_flags(source).context(format!("{split} split"))
            }
            TrainError::Dataset(source) => with_flags(source),
            error @ TrainError::NotFinite { saved: 0, .. } => anyhow!(
                "{error} (--lr, --warmup). The run cannot be resumed: delete its folder, or give another --out"
            ),
            error @ TrainError::NotFinite { .. } => anyhow!("{error} (--lr, --warmup)"),
            other => other.into(),
        }
    }
}

fn flag(key: &str) -> String {
    match key {
        "mixture" => "--data".into(),
        _ => format!("--{}", key.replace('_', "-")),
    }
}
