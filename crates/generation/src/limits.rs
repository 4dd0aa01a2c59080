//! How much an engine may decode at once, and the memory that takes.

use block_transformer_layers::neox::NeoXConfig;
use block_transformer_zoo::block::{BlockTransformerConfig, Strategy, TokenDecoderConfig};
use block_transformer_zoo::{FamilyConfig, ModelConfig};

use crate::GenerationError;
use crate::prompts::CHUNK;

/// Bytes of a number in caches and activations, f32.
const NUMBER: u64 = 4;

/// What an engine has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences decoded at once.
    pub sequences: usize,
    /// Tokens of a sequence, prompt and continuation.
    pub tokens: usize,
}

/// Bytes of an engine, predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The model's weights.
    pub weights: u64,
    /// Keys and values, allocated when the engine is made.
    pub caches: u64,
    /// What the largest step holds in passing.
    pub activations: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.caches).saturating_add(self.activations)
    }
}

impl Limits {
    /// # Errors
    /// When there is room for nothing.
    pub fn check(&self) -> Result<(), GenerationError> {
        if self.sequences == 0 || self.tokens < 2 {
            return Err(GenerationError::NoRoom);
        }
        Ok(())
    }

    /// Blocks (of a vanilla model: tokens) whose keys and values a sequence may need: all of the
    /// longest prompt that leaves a token to write, or of any shorter one and its continuation. The
    /// block written last is never an input.
    pub fn cached_blocks(&self, config: &ModelConfig) -> usize {
        self.tokens.saturating_sub(1).div_ceil(config.block_length())
    }

    /// The memory of an engine with these limits on burn-flex, for a model whose weights take
    /// `weights` bytes ([`FamilyConfig::weight_bytes`]).
    ///
    /// - caches, a sequence: `2 * layers * width * 4` bytes for each of the
    ///   `ceil((tokens - 1) / L) * E` positions of the block decoder and of the `E r + L - 1` of the
    ///   token decoder (`L` of one without a prefix); of a vanilla model, of `tokens - 1` positions
    /// - activations: the largest of a chunk of a prompt in a layer, a step of all sequences in a
    ///   layer, and their logits twice. A layer holds its input, what attention gave, and the inner
    ///   vectors of the MLP before and after the activation function.
    ///
    /// The process itself comes on top, as does what loading the weights takes for a while; and on
    /// devices that attend with burn's own operations the scores, `heads * chunk * keys` numbers.
    pub fn memory(&self, config: &ModelConfig, weights: u64) -> Memory {
        let one = Sequence::of(self.cached_blocks(config), config);
        let sequences = self.sequences as u64;
        Memory {
            weights,
            caches: sequences.saturating_mul(one.cache),
            activations: one.chunk.max(sequences.saturating_mul(one.step)),
        }
    }

    /// As many sequences of `tokens` tokens as fit into `bytes` with weights of `weights` bytes, but
    /// no more than `most`.
    ///
    /// # Errors
    /// When not even one fits.
    pub fn that_fit(
        config: &ModelConfig,
        weights: u64,
        tokens: usize,
        most: usize,
        bytes: u64,
    ) -> Result<Self, GenerationError> {
        let limits = Self { sequences: 1, tokens };
        limits.check()?;
        let needed = limits.memory(config, weights).total();
        if needed > bytes {
            return Err(GenerationError::Memory { given: bytes, tokens, needed, weights });
        }
        let one = Sequence::of(limits.cached_blocks(config), config);
        // weights + n cache + max(chunk, n step) <= bytes
        let left = bytes - weights;
        let step = one.cache.saturating_add(one.step);
        let fit = ((left - one.chunk) / one.cache.max(1)).min(left / step);
        let sequences = usize::try_from(fit).unwrap_or(usize::MAX).min(most.max(1));
        Ok(Self { sequences, tokens })
    }
}

/// Bytes a sequence takes.
struct Sequence {
    cache: u64,
    /// A chunk of its prompt.
    chunk: u64,
    /// A step of it.
    step: u64,
}

impl Sequence {
    /// A sequence with a cache for `blocks` blocks, of a vanilla model for as many tokens.
    fn of(blocks: usize, config: &ModelConfig) -> Self {
        let (cache, chunk, step) = match config {
            ModelConfig::Vanilla(config) => {
                let layer = layer(&config.stack);
                (blocks.saturating_mul(config.stack.kv_bytes(1)), CHUNK.min(blocks) * layer, layer)
            }
            ModelConfig::Block(config) => {
                let (e, layer) = (config.embeddings_per_block(), layer(&config.block_decoder));
                let (token_cache, token_step) = token_decoder(config);
                let positions = blocks.saturating_mul(e);
                let cache = positions.saturating_mul(config.block_decoder.kv_bytes(1));
                let cache = cache.saturating_add(token_cache);
                (cache, CHUNK.min(positions) * layer, token_step.max(e * layer))
            }
        };
        let bytes = |numbers: usize| (numbers as u64).saturating_mul(NUMBER);
        let logits = 2 * config.vocab_size();
        Self { cache: bytes(cache), chunk: bytes(chunk), step: bytes(step.max(logits)) }
    }
}

/// Numbers that a position takes in a layer.
fn layer(stack: &NeoXConfig) -> usize {
    2 * stack.hidden_size + 2 * stack.intermediate()
}

/// Numbers that a sequence takes in the caches of the token decoder, and in a step of it.
fn token_decoder(config: &BlockTransformerConfig) -> (usize, usize) {
    let vectors = config.embeddings_per_block() * config.expansion();
    let (l, width) = (config.block_length, config.token_decoder.hidden_size());
    match &config.token_decoder {
        TokenDecoderConfig::NeoX(decoder) => {
            let prefix = decoder.decoding_strategy == Strategy::Prefix;
            let first = if prefix { vectors } else { 1 };
            let cache = (first + l - 1) * decoder.stack.kv_bytes(1);
            (cache, first * layer(&decoder.stack) + vectors * width)
        }
        TokenDecoderConfig::T5(decoder) => {
            let stack = &decoder.stack;
            let states = vectors * (stack.kv_bytes(1) + width);
            (l * stack.kv_bytes(1), states + 2 * width + 2 * stack.d_ff)
        }
    }
}
