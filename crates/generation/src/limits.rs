//! The number and length of the sequences of an engine, and the memory that they need.

use block_transformer_family::{CacheFormat, FamilyConfig, Precision, StackShape};
use block_transformer_layers::chooses;
use burn::tensor::Device;

use crate::error::GenerationError;
use crate::prompts::{PREFILL_CHUNK, prefill_chunk};

/// The sequences that an engine has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences decoded together.
    pub max_sequences: usize,
    /// Tokens per sequence, prompt and continuation together.
    pub max_tokens: usize,
}

/// The memory of a model's weights, and the format of its caches and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// The format of caches, and of activations if it is a float format.
    pub cache: CacheFormat,
    /// Positions of a prompt that are run together.
    pub chunk: usize,
    /// The largest bytes of the attention scores that a prefill holds.
    pub score_bytes: u64,
}

/// Bytes of the scores of a prefill on a CubeCL device, which computes them in parts of 64 MiB: scores,
/// probabilities, and a copy of these in the format of the cache.
const GPU_SCORE_BYTES: u64 = 3 * (64 << 20);

impl Storage {
    /// Returns the storage of a model on burn-flex with the configuration `config` and weights in
    /// `precision`.
    pub fn of<C: FamilyConfig>(config: &C, precision: Precision) -> Self {
        Self::new(config.weight_bytes(precision), precision.cache())
    }

    /// Returns the storage of a model on burn-flex with weights of `weight_bytes` bytes, and caches and
    /// activations in the format `cache`.
    pub fn new(weight_bytes: u64, cache: CacheFormat) -> Self {
        Self { weight_bytes, cache, chunk: PREFILL_CHUNK, score_bytes: 0 }
    }

    /// Returns the storage of the same model on `device`.
    pub fn on(self, device: &Device) -> Self {
        let score_bytes = if chooses(device) { GPU_SCORE_BYTES } else { 0 };
        Self { chunk: prefill_chunk(device), score_bytes, ..self }
    }
}

/// The predicted memory of an engine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The model's weights.
    pub weights: u64,
    /// Keys and values, allocated when the engine is created.
    pub caches: u64,
    /// Temporary tensors of the largest step.
    pub activations: u64,
}

impl Memory {
    /// Returns the sum of all parts.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.caches).saturating_add(self.activations)
    }
}

impl Limits {
    /// Checks that there is room for a sequence.
    pub(crate) fn check(&self) -> Result<(), GenerationError> {
        if self.max_sequences == 0 || self.max_tokens < 2 {
            return Err(GenerationError::NoRoom);
        }
        Ok(())
    }

    /// Returns the cache capacity per sequence, in blocks (in tokens for models without blocks).
    /// The last token is never an input, hence `max_tokens - 1`.
    pub(crate) fn cached_blocks<C: FamilyConfig>(&self, config: &C) -> usize {
        self.max_tokens.saturating_sub(1).div_ceil(config.block_length())
    }

    /// Predicts the memory of an engine with these limits on burn-flex, or on the device of `storage`.
    ///
    /// `L` is the block length, `E` the number of embeddings per block, and `r` the expansion
    /// ratio.
    ///
    /// - Caches, per sequence: `2 * layers * kv_width` values (and `2 * layers * heads` scales of integers)
    ///   for each of
    ///   `ceil((max_tokens - 1) / L) * E` positions of the block decoder and `E r + L - 1`
    ///   positions of the token decoder (`L` positions without a prefix). A model without blocks
    ///   has `max_tokens - 1` positions.
    /// - Activations: the largest of a prefill chunk in one layer, a step of all sequences in one
    ///   layer, and twice the logits of that step. A layer holds its input, the output of
    ///   attention, and the inner vectors of the MLP before and after the activation function. A
    ///   step of the token decoder also holds the expanded context embeddings and, with
    ///   cross-attention, their keys and values in all layers.
    ///
    /// The memory that the process uses without the engine and the temporary memory of loading the
    /// weights are not included. A prefill on a CubeCL device also holds attention scores. On ndarray,
    /// the scores (`heads * chunk * keys` values) are not included.
    pub fn memory<C: FamilyConfig>(&self, config: &C, storage: Storage) -> Memory {
        let one = SequenceBytes::new(config, self.cached_blocks(config), storage);
        let sequences = self.max_sequences as u64;
        Memory {
            weights: storage.weight_bytes,
            caches: sequences.saturating_mul(one.cache),
            activations: one.chunk(sequences).max(sequences.saturating_mul(one.step)),
        }
    }

    /// Returns the limits with the largest number of sequences of `max_tokens` tokens that fits
    /// into `bytes`, but at most `max_sequences` (0 is taken as 1).
    ///
    /// # Errors
    /// [`GenerationError::NoRoom`] when `max_tokens` is less than 2, [`GenerationError::Memory`]
    /// when not even one sequence fits.
    pub fn that_fit<C: FamilyConfig>(
        config: &C,
        storage: Storage,
        max_tokens: usize,
        max_sequences: usize,
        bytes: u64,
    ) -> Result<Self, GenerationError> {
        let some = |max_sequences| Self { max_sequences, max_tokens };
        some(1).check()?;
        let total = |sequences| some(sequences).memory(config, storage).total();
        let (tokens, needed, weights) = (max_tokens, total(1), storage.weight_bytes);
        if needed > bytes {
            return Err(GenerationError::Memory { given: bytes, tokens, needed, weights });
        }
        // `fit` sequences fit, and `too_many` do not or are more than wanted
        let (mut fit, mut too_many) = (1, max_sequences.max(1).saturating_add(1));
        while too_many - fit > 1 {
            let middle = fit + (too_many - fit) / 2;
            if total(middle) <= bytes { fit = middle } else { too_many = middle }
        }
        Ok(some(fit))
    }
}

/// Bytes per sequence.
struct SequenceBytes {
    cache: u64,
    /// A decoding step.
    step: u64,
    /// A position of a prompt.
    position: u64,
    /// Positions of a prompt.
    positions: u64,
    /// Positions that are run together.
    together: u64,
    /// The scores of a prompt.
    scores: u64,
}

impl SequenceBytes {
    /// Returns the bytes of a sequence with a cache of `blocks` blocks.
    fn new<C: FamilyConfig>(config: &C, blocks: usize, storage: Storage) -> Self {
        let stacks = config.stacks();
        let (e, layer) = (stacks.embeddings_per_block, layer_values(&stacks.context));
        let positions = blocks.saturating_mul(e);
        let mut cache = positions.saturating_mul(storage.cache.bytes(&stacks.context));
        let mut step = (e * layer).max(2 * stacks.vocab_size);
        if let Some(token) = &stacks.token {
            let (stack, length) = (&token.stack, stacks.block_length);
            let encoder = if stack.cross_attention { stack.kv_values() } else { 0 };
            let vectors = token.vectors * (stack.width + encoder);
            let positions = token.cached_positions(length);
            cache = cache.saturating_add(positions * storage.cache.bytes(stack));
            step = step.max(token.first_positions() * layer_values(stack) + vectors);
        }
        let value = storage.cache.values().bytes() as u64;
        let bytes = |count: usize| (count as u64).saturating_mul(value);
        let scores = (12 * stacks.context.heads as u64)
            .saturating_mul(storage.chunk.min(positions) as u64)
            .saturating_mul(positions as u64);
        Self {
            cache: cache as u64,
            step: bytes(step),
            position: bytes(layer),
            positions: positions as u64,
            together: storage.chunk as u64,
            scores: scores.min(storage.score_bytes),
        }
    }

    /// Bytes of a prefill of `sequences` prompts, some of which are run together.
    fn chunk(&self, sequences: u64) -> u64 {
        let together = self.together.min(self.positions.saturating_mul(sequences));
        together.saturating_mul(self.position).saturating_add(self.scores)
    }
}

/// Values per position in one layer.
fn layer_values(stack: &StackShape) -> usize {
    2 * stack.width + 2 * stack.mlp_width
}
