//! Configuration of a run.

use std::path::{Path, PathBuf};

use block_transformer_collectives::Wire;
use block_transformer_cost::OptimizerKind;
use block_transformer_datasets::{Share, TokenizerChoice, WindowKind};
use block_transformer_device::DeviceName;
use block_transformer_zoo::family::Lora;
use block_transformer_zoo::{FamilyConfig, ModelConfig, Precision};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::uptrain::Uptrain;

/// The text of adapters; empty without them, because TOML has no null.
mod lora_text {
    use block_transformer_zoo::family::Lora;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(lora: &Option<Lora>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&lora.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Lora>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
    }
}

/// A run of one process, unless its launcher says otherwise.
fn one() -> usize {
    1
}

/// Configuration of a run. As TOML it has every key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Preset with the defaults of the other keys.
    pub preset: String,
    /// Recipe or path of the corpus; empty if there is a mixture. A preset does not set it.
    pub corpus: String,
    /// Prepared corpora to mix in place of one corpus, with their weights. A preset does not set it.
    pub mixture: Vec<Share>,
    /// How the documents become windows of training.
    pub windows: WindowKind,
    /// How the held-out documents become windows of validation. It does not follow `windows`, so that the losses
    /// of runs with other windows can be compared. Contiguous windows are the same for every block length.
    pub validation: WindowKind,
    /// Folder of the run.
    pub out: PathBuf,
    /// Device to compute on, unless `devices` names several.
    pub device: DeviceName,
    /// Devices that share each step. Each holds the whole model. If the list is empty, `device`
    /// computes alone.
    pub devices: Vec<DeviceName>,
    /// [`Precision::F32`], or [`Precision::Bf16`]: matrix products have bf16 operands. Weights,
    /// gradients, optimizer, residual stream, norms, softmax and loss are f32 in both.
    pub precision: Precision,
    /// Processes that share each step, each with the same number of devices. The launcher of the run sets it; it
    /// is not a key.
    #[serde(skip, default = "one")]
    pub processes: usize,
    /// The format in which gradients travel between processes.
    pub wire: Wire,
    /// Send gradients to the other processes while others are still computed.
    pub overlap: bool,
    /// Steps between comparisons of the weights of all processes; 0 for none.
    pub compare_every: u64,
    /// Keep the hidden states between layers for the backward pass, and compute all other activations
    /// of a layer again there. Results are the same; it takes less memory and more time.
    pub recompute: bool,
    /// A run that was killed and resumed ends with the same bits as an uninterrupted run, also on a GPU.
    /// It is an error where this cannot be guaranteed. On flex and ndarray it is always so.
    pub deterministic: bool,
    /// Seed of the initial weights and of the order of windows.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences per micro-batch.
    pub batch: usize,
    /// Micro-batches per step; their gradients are averaged.
    pub accumulate: usize,
    /// Tokens per sequence.
    pub context: usize,
    /// The optimizer. Both take the same learning rate, weight decay and clipping.
    pub optimizer: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end, as a fraction of the peak.
    pub lr_end: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; a larger one is scaled down.
    pub clip: f64,
    /// Steps between validations.
    pub validate_every: u64,
    /// Validation windows, spread evenly over the validation split.
    pub validation_windows: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Newest checkpoints that are kept besides the best.
    pub keep: usize,
    /// Steps between reports of progress.
    pub log_every: u64,
    /// Checkpoint or run folder whose weights the run begins with. Empty: new weights.
    pub from: String,
    /// How a vanilla model in `from` becomes a Block Transformer.
    pub uptrain: Uptrain,
    /// Weight of the divergence from the vanilla model in `from`; 0 without distillation.
    pub distill: f64,
    /// Rank and parts of adapters, which are trained in place of the weights in `from`. Empty: all weights are
    /// trained.
    #[serde(with = "lora_text")]
    pub lora: Option<Lora>,
    /// Steps between evaluations; 0 for none.
    pub eval_every: u64,
    /// Tasks of an evaluation: names, or TOML files of tasks.
    pub eval_tasks: Vec<String>,
    /// First items of each task that are evaluated; 0 for all.
    pub eval_limit: usize,
    /// Folder of the tasks' files.
    pub eval_data: PathBuf,
    /// Origin of the tokenizer.
    pub tokenizer: TokenizerChoice,
    /// Shape of the model. Its `vocab_size` follows the tokenizer.
    pub model: ModelConfig,
}

impl TrainConfig {
    /// Largest number of tokens in a micro-batch, padding included.
    pub const MAX_BATCH_TOKENS: usize = 1 << 24;
    /// Largest number of tokens in a step, padding included.
    pub const MAX_STEP_TOKENS: usize = 1 << 28;

    /// Largest learning rate, far above any that trains: with a larger one, an update of a weight may not fit
    /// into f32.
    pub const MAX_LR: f64 = 1e30;

    /// The defaults of `preset`.
    ///
    /// # Errors
    /// When there is no such preset.
    pub fn from_preset(preset: &str) -> Result<Self, TrainError> {
        let block_transformer_zoo::Preset { train, model, .. } =
            block_transformer_zoo::preset(preset)?;
        Ok(Self {
            preset: preset.into(),
            corpus: String::new(),
            mixture: Vec::new(),
            windows: WindowKind::Documents,
            validation: WindowKind::Documents,
            out: Path::new("runs").join(preset),
            device: DeviceName::Flex,
            devices: Vec::new(),
            precision: Precision::F32,
            processes: 1,
            wire: Wire::F32,
            overlap: true,
            compare_every: 100,
            recompute: false,
            deterministic: false,
            seed: 0,
            steps: train.steps,
            batch: train.batch,
            accumulate: 1,
            context: train.context,
            optimizer: OptimizerKind::Adamw,
            lr: train.lr,
            lr_end: 0.1,
            warmup: train.warmup,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            validate_every: (train.steps / 10).clamp(1, 1000),
            validation_windows: 32,
            checkpoint_every: (train.steps / 5).clamp(1, 1000),
            keep: 3,
            log_every: (train.steps / 60).clamp(1, 10),
            from: String::new(),
            uptrain: Uptrain::Off,
            distill: 0.0,
            lora: None,
            eval_every: 0,
            eval_tasks: Vec::new(),
            eval_limit: 0,
            eval_data: Path::new("data").join("eval"),
            tokenizer: TokenizerChoice::Bpe(2048),
            model: model.clone(),
        })
    }

    /// The devices that compute: at least one.
    pub fn all_devices(&self) -> &[DeviceName] {
        if self.devices.is_empty() { std::slice::from_ref(&self.device) } else { &self.devices }
    }

    /// The devices of all processes.
    pub(crate) fn replicas(&self) -> usize {
        self.processes * self.all_devices().len()
    }

    /// Checks that a step can be divided among `replicas` devices of all processes.
    pub(crate) fn check_replicas(&self, replicas: usize) -> Result<(), TrainError> {
        let (batch, accumulate) = (self.batch, self.accumulate);
        if accumulate.is_multiple_of(replicas) || batch >= replicas {
            return Ok(());
        }
        if self.processes > 1 {
            let range = format!(
                "at least {replicas}, one sequence for each device of the {} processes, unless `accumulate` is a \
                 multiple of {replicas}",
                self.processes
            );
            return Err(TrainError::OutOfRange { key: "batch", value: batch.to_string(), range });
        }
        let range = format!(
            "at most {batch} devices, the sequences of a micro-batch (`batch`), or a number that \
             divides {accumulate}, the micro-batches of a step (`accumulate`)"
        );
        Err(TrainError::OutOfRange { key: "devices", value: replicas.to_string(), range })
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Returns an error that names the first key with an invalid value, and the allowed values.
    pub fn check(&self) -> Result<(), TrainError> {
        let out_of_range = |key, value: String, range: &str| {
            Err(TrainError::OutOfRange { key, value, range: range.into() })
        };
        for (key, count) in [
            ("steps", self.steps),
            ("batch", self.batch as u64),
            ("accumulate", self.accumulate as u64),
            ("context", self.context as u64),
            ("validate_every", self.validate_every),
            ("validation_windows", self.validation_windows),
            ("checkpoint_every", self.checkpoint_every),
            ("keep", self.keep as u64),
            ("log_every", self.log_every),
        ] {
            if count == 0 {
                return out_of_range(key, "0".into(), "at least 1");
            }
        }
        match (self.eval_every, self.eval_tasks.is_empty()) {
            (0, false) => {
                return out_of_range("eval_every", "0".into(), "at least 1 with eval_tasks");
            }
            (every, true) if every > 0 => {
                return out_of_range("eval_tasks", "[]".into(), "one task or more with eval_every");
            }
            _ => {}
        }
        if let (false, Some(share)) = (self.corpus.is_empty(), self.mixture.first()) {
            let range = "left out if there is a `corpus`";
            return out_of_range("mixture", share.to_string(), range);
        }
        for (key, value, fits, range) in [
            ("lr", self.lr, self.lr > 0.0 && self.lr <= Self::MAX_LR, "above 0 and at most 1e30"),
            ("lr_end", self.lr_end, (0.0..=1.0).contains(&self.lr_end), "from 0 to 1"),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "from 0 to below 1"),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "from 0 to below 1"),
            ("epsilon", self.epsilon, self.epsilon > 0.0, "above 0"),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0.0, "0 or above"),
            ("clip", self.clip, self.clip > 0.0, "above 0"),
            ("distill", self.distill, self.distill >= 0.0, "0 or above"),
        ] {
            if !fits || !value.is_finite() {
                let value =
                    if value.abs() < 1e9 { value.to_string() } else { format!("{value:e}") };
                return out_of_range(key, value, range);
            }
        }
        for (key, tokens, most) in [
            ("batch", self.batch.saturating_mul(self.context), Self::MAX_BATCH_TOKENS),
            (
                "accumulate",
                self.batch.saturating_mul(self.context).saturating_mul(self.accumulate),
                Self::MAX_STEP_TOKENS,
            ),
        ] {
            if tokens > most {
                let value = if key == "batch" { self.batch } else { self.accumulate };
                let range = format!("smaller: it makes {tokens} tokens, and the limit is {most}");
                return out_of_range(key, value.to_string(), &range);
            }
        }
        self.check_replicas(self.replicas())?;
        if self.uptrain == Uptrain::Off && self.distill > 0.0 {
            let range = "0 unless a vanilla model becomes a Block Transformer (`uptrain`)";
            return out_of_range("distill", self.distill.to_string(), range);
        }
        if let (true, Some(lora)) =
            (self.from.is_empty() || self.uptrain != Uptrain::Off, &self.lora)
        {
            let range =
                "empty unless the run begins with given weights (`from`) that keep their shape";
            return out_of_range("lora", lora.to_string(), range);
        }
        if let (OptimizerKind::Muon, Some(lora)) = (self.optimizer, &self.lora) {
            let range = format!("adamw with adapters (`lora` {lora})");
            return out_of_range("optimizer", self.optimizer.to_string(), &range);
        }
        let other_kind = |device: &&DeviceName| device.name() != self.all_devices()[0].name();
        if let Some(other) = self.all_devices().iter().find(other_kind) {
            let first = self.all_devices()[0];
            let range = "devices of one kind, because weights of different kinds drift apart";
            return out_of_range("devices", format!("{first}, {other}"), range);
        }
        if !matches!(self.precision, Precision::F32 | Precision::Bf16) {
            return out_of_range("precision", self.precision.to_string(), "f32 or bf16");
        }
        if self.recompute && self.all_devices().contains(&DeviceName::Ndarray) {
            return out_of_range("recompute", "true".into(), "false on the device ndarray");
        }
        let measures = self.all_devices().iter().find(|device| device.measures_kernels());
        if let (true, Some(device)) = (self.deterministic, measures) {
            let range = format!(
                "false on the device {device} in a build with the feature `autotune`, which measures \
                 kernels and keeps the fastest"
            );
            return out_of_range("deterministic", "true".into(), &range);
        }
        let (context, block_length) = (self.context, self.model.block_length());
        if !context.is_multiple_of(block_length) || context < 2 * block_length {
            let (least, near) = (2 * block_length, context.next_multiple_of(block_length));
            let range = format!(
                "a multiple of the model's block_length {block_length}, at least {least}; the \
                 nearest is {}",
                near.max(least)
            );
            return out_of_range("context", context.to_string(), &range);
        }
        Ok(())
    }
}
