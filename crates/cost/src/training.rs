//! The predicted speed of training on a GPU.

use block_transformer_family::{CacheFormat, FamilyConfig, MatrixFormat};

use crate::cost::{Cost, Phases};
use crate::launches::step_launches;
use crate::machine::Machine;
use crate::phases::decode;
use crate::sizes::Sizes;

/// A training step computes three times the products of a forward pass: the forward pass, and the
/// gradients of both operands.
const PASSES: f64 = 3.0;
/// Bytes per value: all activations and weights of training are f32.
const F32: f64 = 4.0;
/// Reads and writes of a score of the attention over the context, forward and backward, which
/// computes the scores again: `kernels/src/cube/long_attention.rs` operation by operation, without
/// fusion.
const SCORE_PASSES: f64 = 28.0;
/// Reads and writes of a logit, forward and backward: `layers/src/loss.rs` operation by operation,
/// without the six that the phase of the LM head has.
const LOGIT_PASSES: f64 = 7.0;
/// The factor of the traffic of activations in bf16. About half of the values are operands or results
/// of products, each of which is written and read once more, in 2 instead of 4 bytes.
const CASTS: f64 = 1.5;
/// Bytes per parameter and micro-batch: the weight is read twice, its gradient written; the sum of
/// gradients is read and written.
const WEIGHT_BYTES: f64 = 5.0 * F32;
/// Bytes per parameter and step: the gradient is read for its norm; AdamW reads the gradient, the
/// weight and two moments, and writes three of them.
const OPTIMIZER_BYTES: f64 = 8.0 * F32;

/// The sequences of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingStep {
    /// Sequences per step.
    pub batch: usize,
    /// Sequences whose gradients are computed together.
    pub micro_batch: usize,
    /// Tokens per sequence.
    pub context: usize,
}

impl TrainingStep {
    /// Returns the tokens of a step.
    pub fn tokens(self) -> f64 {
        self.batch as f64 * self.context as f64
    }

    /// Returns the number of micro-batches.
    pub fn micro_batches(self) -> usize {
        self.batch.div_ceil(self.micro_batch)
    }
}

/// The predicted speed of training steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingPrediction {
    /// FLOPs of the model per token: three times those of the forward pass. What a gradient computes
    /// again does not count.
    pub token_flops: f64,
    /// Bytes of memory read and written per token.
    pub token_bytes: f64,
    /// Kernel launches per step; `None` if the launches of such a model were not counted.
    pub launches: Option<f64>,
    /// Tokens per second if the phases of a step run one after the other at the peaks of the
    /// machine, and launches take no time.
    pub rate: f64,
    /// Like [`rate`](Self::rate), with the time of the launches added.
    pub rate_with_launches: Option<f64>,
}

impl TrainingPrediction {
    /// Predicts the speed of training steps of a model on `machine`, in the machine's precision.
    pub fn new<C: FamilyConfig>(config: &C, machine: &Machine, step: TrainingStep) -> Self {
        let phases = phases(config, machine, step);
        let (tokens, total) = (step.tokens(), phases.total());
        let seconds = phases.seconds(machine);
        let launches = step_launches(config, machine.precision, step);
        let slowed = |launches| tokens / (seconds + launches * machine.launch);
        Self {
            token_flops: total.flops() / tokens,
            token_bytes: (total.weights + total.activations) / tokens,
            launches,
            rate: tokens / seconds,
            rate_with_launches: launches.map(slowed),
        }
    }

    /// Returns the share of the machine's peak of which a training at `rate` tokens per second makes
    /// use: the model FLOPs utilization (MFU).
    pub fn utilization(&self, rate: f64, machine: &Machine) -> f64 {
        rate * self.token_flops / machine.flops
    }
}

/// Returns the phases of a step.
fn phases<C: FamilyConfig>(config: &C, machine: &Machine, step: TrainingStep) -> Phases {
    let (stacks, tokens) = (config.stacks(), step.tokens());
    let values = Sizes { weights: F32, values: F32, cache: CacheFormat::F32 };
    // a token has the same products as in decoding, after half of the context on average; keys and
    // values are activations
    let forward = decode(config, 1, step.context / 2, values).0;
    let casts = if machine.precision.matrices() == MatrixFormat::F32 { 1.0 } else { CASTS };
    let layers = forward.into_iter().map(|cost| Cost {
        weights: 0.0,
        caches: 0.0,
        activations: cost.activations * casts,
        ..cost
    });
    let mut phases: Vec<Cost> = layers.map(|cost| cost * (PASSES * tokens)).collect();
    let moved = |bytes| Cost { activations: bytes, ..Cost::default() };
    // a position sees half of the positions on average
    let (e, l) = (stacks.embeddings_per_block as f64, stacks.block_length as f64);
    let positions = step.context as f64 / l * e;
    let scores = (stacks.context.layers * stacks.context.heads) as f64 * positions / 2.0;
    phases.push(moved(tokens / l * e * scores * SCORE_PASSES * F32));
    phases.push(moved(tokens * stacks.vocab_size as f64 * LOGIT_PASSES * F32));
    let per_step = step.micro_batches() as f64 * WEIGHT_BYTES + OPTIMIZER_BYTES;
    phases.push(Cost { weights: config.num_params() as f64 * per_step, ..Cost::default() });
    Phases(phases)
}
