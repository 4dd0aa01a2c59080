//! Kernel launches on CUDA, from the counts of `launches.toml`.
//!
//! Launches are linear in the layers, and do not depend on the number of sequences, except for
//! attention and losses that are computed in parts. `tests/gpu/launches.sh` counts models with one and
//! two layers in each stack. The counts are linear within 3%: fusion joins more operations of some
//! models than of others.

use std::sync::LazyLock;

use block_transformer_family::{
    BLOCK_FAMILY, Conditioning, FamilyConfig, MatrixFormat, Precision, Stacks,
};
use serde::Deserialize;

use crate::training::TrainingStep;

/// Bytes of the scores of one part of the attention over the context (`long_attention.rs`).
const SCORE_BYTES: usize = 64 << 20;
/// Logits of one part of the loss (`loss.rs`).
const PART_LOGITS: usize = 1 << 25;
/// The block length of the counted models, and the tokens of a count of decoding.
const TOKENS: usize = 4;
/// Positions of prompts that a GPU runs together.
const CHUNK: usize = block_transformer_generation::GPU_PREFILL_CHUNK;

/// Launches that are linear in the layers.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Linear {
    /// Launches outside the layers.
    base: f64,
    /// Launches per layer of the block decoder, or of the only stack.
    context: f64,
    /// Launches per layer of the token decoder.
    token: f64,
}

impl Linear {
    fn of(self, stacks: &Stacks) -> f64 {
        let token = stacks.token.map_or(0, |token| token.stack.layers) as f64;
        self.base + self.context * stacks.context.layers as f64 + self.token * token
    }
}

/// The counts of a family.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct FamilyCounts {
    /// A step of one micro-batch.
    step: Linear,
    /// The part of a step that further micro-batches do not repeat.
    update: Linear,
    /// Four decoded tokens of every sequence.
    decoding: Linear,
    /// A chunk of a prompt.
    prefill: Linear,
}

/// The counts in a precision.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchCounts {
    /// Each part of the attention of a context layer after the first one.
    attention_part: f64,
    /// Each part of the loss after the first one.
    loss_part: f64,
    block: FamilyCounts,
    vanilla: FamilyCounts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    f32: LaunchCounts,
    bf16: LaunchCounts,
}

/// Returns the counts for models like `config`; `None` if none of its kind was counted.
fn counts<C: FamilyConfig>(
    config: &C,
    precision: Precision,
) -> Option<(Stacks, &'static LaunchCounts, &'static FamilyCounts)> {
    static FILE: LazyLock<File> = LazyLock::new(|| {
        toml::from_str(include_str!("../launches.toml")).expect("a test reads it")
    });
    let counts = match precision.matrices() {
        MatrixFormat::F32 => &FILE.f32,
        MatrixFormat::Bf16 | MatrixFormat::Int8 => &FILE.bf16,
    };
    let stacks = config.stacks();
    let counted = match (config.family(), stacks.token, stacks.embedder) {
        (BLOCK_FAMILY, Some(token), Some(embedder)) => {
            let is_counted = token.conditioning == Conditioning::Prefix
                && embedder.encoder.is_none()
                && embedder.projection_params == 0
                && stacks.block_length == TOKENS;
            is_counted.then_some(&counts.block)
        }
        ("vanilla", None, None) => Some(&counts.vanilla),
        _ => None,
    };
    Some((stacks, counts, counted?))
}

/// Returns the launches of a training step; `None` if no model of this kind was counted.
pub fn step_launches<C: FamilyConfig>(
    config: &C,
    precision: Precision,
    step: TrainingStep,
) -> Option<f64> {
    let (stacks, parts, counts) = counts(config, precision)?;
    let micro_batches = step.micro_batches() as f64;
    let positions = step.context / stacks.block_length * stacks.embeddings_per_block;
    let per_query = 4 * step.micro_batch * stacks.context.heads * positions;
    let queries = (SCORE_BYTES / per_query.max(1)).clamp(1, positions.max(1));
    let attention = (positions.div_ceil(queries).max(1) - 1) * stacks.context.layers;
    let rows = (PART_LOGITS / stacks.vocab_size).max(1);
    let losses = (step.micro_batch * step.context).div_ceil(rows).max(1) - 1;
    let in_parts = attention as f64 * parts.attention_part + losses as f64 * parts.loss_part;
    let [whole, update] = [counts.step, counts.update].map(|launches| launches.of(&stacks));
    Some(whole + (micro_batches - 1.0) * (whole - update) + micro_batches * in_parts)
}

/// Returns the launches of decoding one token of every sequence, the mean over a block; `None` if no
/// model of this kind was counted.
pub fn decode_launches<C: FamilyConfig>(config: &C, precision: Precision) -> Option<f64> {
    let (stacks, _, counts) = counts(config, precision)?;
    Some(counts.decoding.of(&stacks) / TOKENS as f64)
}

/// Returns the launches of the prefill of `batch` prompts of `tokens` tokens each; `None` if no model
/// of this kind was counted.
pub fn prefill_launches<C: FamilyConfig>(
    config: &C,
    precision: Precision,
    batch: usize,
    tokens: usize,
) -> Option<f64> {
    let (stacks, _, counts) = counts(config, precision)?;
    let positions = tokens.div_ceil(stacks.block_length) * stacks.embeddings_per_block;
    let together = (CHUNK / positions.max(1)).max(1);
    let chunks = batch.div_ceil(together) * positions.div_ceil(CHUNK);
    Some(chunks as f64 * counts.prefill.of(&stacks))
}
