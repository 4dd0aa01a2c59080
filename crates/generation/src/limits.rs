//! How much an engine may decode at once, and the memory that takes.

use zoo::ModelConfig;
use zoo::block_transformer::{BlockTransformerConfig, Strategy, TokenDecoderConfig};
use zoo_layers::neox::NeoXConfig;

use crate::GenerationError;
use crate::prompts::CHUNK;

/// Bytes a number: weights and caches are f32.
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
        self.weights + self.caches + self.activations
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

    /// The memory of an engine with these limits, on burn-flex and in f32.
    ///
    /// - weights: 4 bytes a parameter
    /// - caches, a sequence: `2 * layers * width * 4` bytes for each of the
    ///   `ceil((tokens - 1) / L) * E` positions of the block decoder and of the `E r + L - 1` of the
    ///   token decoder (without prefix `L`); vanilla: of `tokens - 1` positions
    /// - activations: the largest of a chunk of a prompt in a layer, a step of all sequences in a
    ///   layer, and their logits. A layer holds its input, the attention's output and the MLP's
    ///   inner vectors before and after the activation function.
    ///
    /// The process itself comes on top, as does what loading the weights may hold for a while; so do
    /// attention scores (`heads * chunk * keys` numbers) on devices that attend with burn's own
    /// operations.
    pub fn memory(&self, config: &ModelConfig) -> Memory {
        let parts = Parts::of(self, config);
        let sequences = self.sequences as u64;
        Memory {
            weights: parts.weights,
            caches: sequences * parts.cache,
            activations: parts.chunk.max(sequences * parts.row),
        }
    }

    /// As many sequences of `tokens` tokens as fit into `bytes`, but no more than `most`.
    ///
    /// # Errors
    /// When not even one fits.
    pub fn that_fit(
        config: &ModelConfig,
        tokens: usize,
        most: usize,
        bytes: u64,
    ) -> Result<Self, GenerationError> {
        let one = Self { sequences: 1, tokens };
        let Parts { weights, cache, chunk, row } = Parts::of(&one, config);
        let needed = one.memory(config).total();
        if needed > bytes {
            return Err(GenerationError::Memory { given: bytes, tokens, needed, weights });
        }
        // weights + n cache + max(chunk, n row) <= bytes
        let left = bytes - weights;
        let fit = ((left - chunk) / cache.max(1)).min(left / (cache + row));
        let sequences = usize::try_from(fit).unwrap_or(usize::MAX).min(most);
        Ok(Self { sequences, tokens })
    }
}

/// Bytes that memory is made of.
struct Parts {
    weights: u64,
    /// Caches of a sequence.
    cache: u64,
    /// A chunk of a prompt.
    chunk: u64,
    /// A sequence in a step.
    row: u64,
}

impl Parts {
    fn of(limits: &Limits, config: &ModelConfig) -> Self {
        let blocks = limits.cached_blocks(config);
        let bytes = NUMBER as usize;
        let vocab = config.vocab_size();
        let (cache, chunk, row) = match config {
            ModelConfig::Vanilla(config) => {
                let layer = layer(&config.stack);
                let row = layer.max(config.stack.hidden_size + 2 * vocab);
                (blocks * config.stack.kv_bytes(bytes), CHUNK.min(blocks) * layer, row)
            }
            ModelConfig::Block(config) => {
                let (l, e) = (config.block_length, config.embeddings_per_block());
                let decoder = layer(&config.block_decoder);
                let token = TokenPart::of(config);
                let row = (e * decoder).max(token.step).max(token.width + 2 * vocab);
                let positions = blocks * e;
                // the vectors of the embedder are no wider than the layer's
                let _ = l;
                (
                    positions * config.block_decoder.kv_bytes(bytes) + token.cache * bytes,
                    CHUNK.min(positions) * decoder,
                    row,
                )
            }
        };
        let numbers = |count: usize| count as u64 * NUMBER;
        Self {
            weights: numbers(config.num_params()),
            cache: cache as u64,
            chunk: numbers(chunk),
            row: numbers(row),
        }
    }
}

/// Numbers a position of a stack holds at most.
fn layer(stack: &NeoXConfig) -> usize {
    2 * stack.hidden_size + 2 * stack.intermediate()
}

/// Numbers of a sequence in the token decoder.
struct TokenPart {
    cache: usize,
    step: usize,
    width: usize,
}

impl TokenPart {
    fn of(config: &BlockTransformerConfig) -> Self {
        let vectors = config.embeddings_per_block() * config.expansion();
        let width = config.token_decoder.hidden_size();
        match &config.token_decoder {
            TokenDecoderConfig::NeoX(decoder) => {
                let prefix = decoder.decoding_strategy == Strategy::Prefix;
                let first = if prefix { vectors } else { 1 };
                let positions = first + config.block_length - 1;
                Self {
                    cache: positions * decoder.stack.kv_bytes(1),
                    step: first * layer(&decoder.stack) + vectors * width,
                    width,
                }
            }
            TokenDecoderConfig::T5(decoder) => {
                let stack = &decoder.stack;
                let kv = 2 * stack.num_hidden_layers * stack.num_attention_heads * stack.d_kv;
                Self {
                    cache: config.block_length * kv,
                    step: 2 * width + 2 * stack.d_ff + vectors * (width + kv),
                    width,
                }
            }
        }
    }
}
