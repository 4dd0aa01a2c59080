//! Errors of training.

use std::path::PathBuf;
use std::sync::Arc;

use block_transformer_checkpoint::CheckpointError;
use block_transformer_collectives::CollectiveError;
use block_transformer_datasets::{DatasetError, Split};
use block_transformer_device::DeviceName;
use block_transformer_files::FileError;
use block_transformer_text::TextError;
use block_transformer_weights::WeightsError;
use block_transformer_zoo::{ConfigError, ModelConfig, PresetError, family::InvalidConfig};
use burn::train::TrainingError;

use crate::update::StepResult;

/// The error of an evaluation of the model while it trains.
pub type EvaluationError = Box<dyn std::error::Error + Send + Sync>;

/// A run that cannot start or cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A value of the configuration that is out of range.
    #[error("{key} = {value}: must be {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The allowed values.
        range: String,
    },
    /// A file that is not a configuration, or a key or value that the configuration does not have.
    #[error("{origin}: {reason}")]
    Configuration {
        /// The file with the line, or "flags".
        origin: String,
        /// The key and the cause.
        reason: String,
    },
    /// A resumed run must keep the keys that its results depend on.
    #[error(
        "{key} is {now}, but the run began with {then}; keep the value of the run, or begin another \
         run in another folder"
    )]
    Changed {
        /// The key.
        key: String,
        /// Its value when the run began.
        then: String,
        /// Its value now.
        now: String,
    },
    /// The folder of a new run already contains a run.
    #[error("{0}: the folder holds a run already; resume that run, or choose another folder")]
    FolderInUse(PathBuf),
    /// The folder of a resumed run holds no run.
    #[error("{0}: there is no run to resume")]
    NothingToResume(PathBuf),
    /// The folder of a resumed run has no configuration.
    #[error(
        "{0}: the file is missing, and the run cannot be resumed without its configuration; restore \
         the file. The value of each key is in `state.json` of every checkpoint, under `train`"
    )]
    NoConfiguration(PathBuf),
    /// The checkpoint was trained on data other than the prepared corpus.
    #[error(
        "{0}: trained on a different corpus or tokenizer from the prepared one; prepare the old one \
         again, or begin another run in another folder"
    )]
    OtherCorpus(PathBuf),
    /// The weights that a run begins with have another shape than its model.
    #[error(
        "{path}: the weights make a model of the shape {}, but the run has {}; leave the model to the weights",
        model.to_json(),
        config.to_json()
    )]
    OtherShape {
        /// The checkpoint of the weights.
        path: PathBuf,
        /// The shape that the weights make.
        model: Box<ModelConfig>,
        /// The shape of the run.
        config: Box<ModelConfig>,
    },
    /// The corpus has another tokenizer than the weights that the run begins with.
    #[error(
        "{path}: the weights belong to a tokenizer of {own} ids, and the corpus was tokenized with another one of \
         {corpus} ids, whose ids mean other texts"
    )]
    OtherTokenizer {
        /// The checkpoint of the weights.
        path: PathBuf,
        /// Ids of its tokenizer.
        own: usize,
        /// Ids of the corpus's tokenizer.
        corpus: usize,
    },
    /// The weights that become a Block Transformer are not those of a vanilla model.
    #[error("{0}: only a vanilla model can become a Block Transformer")]
    NotVanilla(PathBuf),
    /// The weights that a resumed run needs again are not those that it began with.
    #[error(
        "{path}: its weights have the SHA-256 {found}, but the run began with {expected}; put those weights back"
    )]
    OtherOrigin {
        /// The checkpoint of the weights.
        path: PathBuf,
        /// The SHA-256 of its weights.
        found: String,
        /// The SHA-256 of the weights that the run began with.
        expected: String,
    },
    /// The weights that a run begins with cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The checkpoint holds imported weights.
    #[error("{0}: a run cannot be resumed from imported weights, which have no optimizer state")]
    NoOptimizer(PathBuf),
    /// A split of the corpus from which no window can be taken.
    #[error("{split} split")]
    Split {
        /// The split.
        split: Split,
        /// The cause.
        source: DatasetError,
    },
    /// The loss or the norm of the gradient is not finite in the first step of a run, or in several
    /// steps in a row. The steps changed nothing.
    #[error(
        "step {step}: the {} is not finite{}; {}. Lower the learning rate or use more warm-up steps",
        if result.loss.is_finite() { "gradient norm" } else { "loss" },
        match in_a_row {
            1 => String::new(),
            steps => format!(", in this step and the {} steps after it", steps - 1),
        },
        match saved {
            0 => "there is no checkpoint yet".into(),
            step => format!("the newest checkpoint holds the weights after step {step}"),
        }
    )]
    NotFinite {
        /// The first of the steps, counted from 1.
        step: u64,
        /// Loss and gradient norm of this step.
        result: StepResult,
        /// Number of steps in a row.
        in_a_row: usize,
        /// The last checkpointed step; 0 without a checkpoint.
        saved: u64,
    },
    /// A device has too little memory for a step.
    #[error(
        "step {step}: a device has too little memory for micro-batches of {batch} {}; {}{}. {}",
        sequences(*batch),
        match smaller {
            Some(smaller) => format!(
                "try micro-batches of {smaller} {}, and more of them per step",
                sequences(*smaller)
            ),
            None => "by the formula not even one sequence fits: use a shorter context, a smaller \
                     model or another device".into(),
        },
        if *recompute { "" } else { ", or recompute the activations" },
        match saved {
            0 => "There is no checkpoint yet".into(),
            step => format!("The newest checkpoint holds the weights after step {step}"),
        }
    )]
    OutOfMemory {
        /// The first step, counted from 1, that may have failed.
        step: u64,
        /// Sequences of a micro-batch.
        batch: usize,
        /// The largest micro-batch below it that should fit; `None` if there is none.
        smaller: Option<usize>,
        /// Whether activations are computed again in the backward pass.
        recompute: bool,
        /// The last checkpointed step; 0 without a checkpoint.
        saved: u64,
    },
    /// A run needs more memory than a device has, by the formula.
    #[error(
        "a model of {params} parameters takes {} MiB in training{}, and the device {device} has {} MiB; {}",
        needed >> 20,
        match largest {
            Some(_) => format!(" with micro-batches of {batch} {}", sequences(*batch)),
            None => String::new(),
        },
        available >> 20,
        match largest {
            Some(largest) => format!(
                "the largest micro-batch that fits has {largest} {}",
                sequences(*largest)
            ),
            None => "use a smaller model or a shorter context".into(),
        }
    )]
    TooLarge {
        /// The device.
        device: DeviceName,
        /// Bytes of memory for a replica of the model on the device.
        available: u64,
        /// Parameters of the model.
        params: usize,
        /// Bytes that a replica needs.
        needed: u64,
        /// Sequences of a micro-batch.
        batch: usize,
        /// The largest micro-batch that fits; `None` if not even one sequence does.
        largest: Option<usize>,
    },
    /// An evaluation that failed.
    #[error(
        "step {step}: the evaluation failed; the newest checkpoint holds the weights after step {saved}"
    )]
    Evaluation {
        /// The step after which it ran.
        step: u64,
        /// The last checkpointed step; 0 without a checkpoint.
        saved: u64,
        /// The cause.
        source: EvaluationError,
    },
    /// Ranks of a run whose weights are not equal any more. All ranks get this error.
    #[error(
        "the weights of {ranks} are not those of rank 0 after step {step}; check the memory and the processors of \
         the machines, then resume from the newest checkpoint"
    )]
    RanksDrifted {
        /// The ranks.
        ranks: String,
        /// The step.
        step: u64,
    },
    /// A rank of a data-parallel run stopped, or did not begin like the others.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// A metric, a logger or a renderer of burn-train failed.
    #[error("the training stopped")]
    Burn(#[from] Arc<TrainingError>),
    /// A file system operation that failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The corpus.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The model's configuration.
    #[error(transparent)]
    Model(#[from] ConfigError),
    /// The sizes of the model do not fit together.
    #[error(transparent)]
    Sizes(#[from] InvalidConfig),
    /// The preset's name.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// A configuration that cannot be written as JSON.
    #[error("the configuration cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A configuration that cannot be written as TOML.
    #[error("the configuration cannot be written as TOML")]
    Toml(#[from] toml::ser::Error),
}

impl TrainError {
    /// Whether all ranks of the run get this error, so that none waits for another.
    pub fn is_of_all_ranks(&self) -> bool {
        match self {
            Self::RanksDrifted { .. } => true,
            Self::Collective(error) => error.is_of_all_ranks(),
            _ => false,
        }
    }
}

fn sequences(count: usize) -> &'static str {
    if count == 1 { "sequence" } else { "sequences" }
}
