//! The phases of decoding a token and of prefilling a prompt.

use block_transformer_zoo::ModelConfig;
use block_transformer_zoo::block::{
    BlockTransformerConfig, EmbedderConfig, Projection, Strategy, TokenDecoderConfig,
};

use crate::cost::{Cost, Phases};
use crate::sizes::Sizes;
use crate::stack::{Batch, KeysRead, neox, neox_attention, roberta, t5};

/// Positions of a prompt that the engine runs together.
const CHUNK: usize = block_transformer_generation::CHUNK;

/// Returns the cost of decoding one token of each of `batch` sequences after `context` tokens; with
/// blocks, the mean over the tokens of a block.
pub fn decode(config: &ModelConfig, batch: usize, context: usize, sizes: Sizes) -> Phases {
    let (rows, context) = (batch as f64, context as f64);
    match config {
        ModelConfig::Vanilla(config) => {
            let mut phases = Phases::default();
            let run = Batch { positions: rows, finished: rows, passes: 1.0 };
            let keys = rows * (context + 1.0);
            let keys_read = KeysRead { keys, finished_keys: keys, read: rows * context };
            phases.push("decoder", neox(&config.stack, run, sizes));
            phases.push("attention", neox_attention(&config.stack, run, keys_read, sizes));
            let width = config.stack.hidden_size;
            phases.push("LM head", head(config.vocab_size, width, rows, sizes, sizes.weights));
            phases
        }
        ModelConfig::Block(config) => block(config, rows, context, sizes),
    }
}

/// Returns the cost of decoding one block of each of `rows` sequences, divided by its length.
fn block(config: &BlockTransformerConfig, rows: f64, context: f64, sizes: Sizes) -> Phases {
    let (e, l) = (config.embeddings_per_block() as f64, config.block_length as f64);
    let mut phases = Phases::default();
    phases.push("embedder", embedder(config, rows, sizes));
    let run = Batch { positions: rows * e, finished: rows * e, passes: 1.0 };
    let keys = rows * e * (context / l * e + e);
    let keys_read = KeysRead { keys, finished_keys: keys, read: rows * context / l * e };
    phases.push("block decoder", neox(&config.block_decoder, run, sizes));
    phases.push("block attention", neox_attention(&config.block_decoder, run, keys_read, sizes));
    let (d, h) = (config.block_decoder.hidden_size, config.token_decoder.hidden_size());
    let vectors = e * config.expansion() as f64;
    let expansion = (d * h * config.expansion()) as f64;
    phases.push(
        "expansion",
        Cost {
            matrix_flops: 2.0 * rows * e * expansion,
            weights: expansion * sizes.weights,
            activations: rows * (e * d as f64 + vectors * h as f64) * sizes.values,
            ..Cost::default()
        },
    );
    let mut head_bytes = sizes.weights;
    match &config.token_decoder {
        TokenDecoderConfig::NeoX(decoder) => {
            let prefix = decoder.decoding_strategy == Strategy::Prefix;
            let first = if prefix { vectors } else { 1.0 };
            let run = Batch { positions: rows * (first + l - 1.0), finished: rows * l, passes: l };
            // the prefix attends to itself causally; token i attends to the prefix and to i - 1 tokens
            let next = (l - 1.0) * first + l * (l - 1.0) / 2.0;
            let keys_read = KeysRead {
                keys: rows * (first * (first + 1.0) / 2.0 + next),
                finished_keys: rows * (first + next),
                read: rows * next,
            };
            phases.push("token decoder", neox(&decoder.stack, run, sizes));
            phases.push("token attention", neox_attention(&decoder.stack, run, keys_read, sizes));
        }
        TokenDecoderConfig::T5(decoder) => {
            let [matrices, attention] = t5(&decoder.stack, rows, l, vectors, sizes);
            phases.push("token decoder", matrices);
            phases.push("token attention", attention);
            // the LM head is the token table, which is always stored like activations
            head_bytes = sizes.values;
        }
    }
    phases.push("LM head", head(config.vocab_size, h, rows, sizes, head_bytes) * l);
    phases.times(1.0 / l)
}

/// Returns the cost of prefilling a prompt of `tokens` tokens, up to its last hidden state.
pub fn prefill(config: &ModelConfig, tokens: usize, sizes: Sizes) -> Phases {
    let mut phases = Phases::default();
    match config {
        ModelConfig::Vanilla(config) => {
            let (run, keys_read) = chunks(tokens, 1);
            phases.push("decoder", neox(&config.stack, run, sizes));
            phases.push("attention", neox_attention(&config.stack, run, keys_read, sizes));
        }
        ModelConfig::Block(config) => {
            let blocks = tokens.div_ceil(config.block_length);
            let (run, keys_read) = chunks(blocks, config.embeddings_per_block());
            let (stack, passes) = (&config.block_decoder, run.passes);
            let mut embedder = embedder(config, blocks as f64, sizes);
            embedder.weights *= passes;
            phases.push("embedder", embedder);
            phases.push("block decoder", neox(stack, run, sizes));
            phases.push("block attention", neox_attention(stack, run, keys_read, sizes));
        }
    }
    phases
}

/// Returns the positions of a prompt of `blocks` blocks of `e` positions, run in chunks, and the keys
/// that they attend to: those of their own block and of the blocks before it.
fn chunks(blocks: usize, e: usize) -> (Batch, KeysRead) {
    let most = (CHUNK / e).max(1);
    let mut run = Batch { positions: (blocks * e) as f64, finished: 0.0, passes: 0.0 };
    let mut keys_read = KeysRead { keys: 0.0, finished_keys: 0.0, read: 0.0 };
    for start in (0..blocks).step_by(most) {
        let end = blocks.min(start + most);
        run.passes += 1.0;
        run.finished += e as f64;
        // block b attends to b + 1 blocks, start <= b < end
        let seen = (end * (end + 1) - start * (start + 1)) / 2;
        keys_read.keys += (seen * e * e) as f64;
        keys_read.finished_keys += (end * e * e) as f64;
        keys_read.read += (start * e) as f64;
    }
    (run, keys_read)
}

/// Embeddings of `blocks` blocks.
fn embedder(config: &BlockTransformerConfig, blocks: f64, sizes: Sizes) -> Cost {
    let (l, d) = (config.block_length, config.block_decoder.hidden_size as f64);
    let e = config.embeddings_per_block() as f64;
    let (width, vectors, projection, encoder) = match &config.embedder {
        EmbedderConfig::Lookup(c) => (c.hidden_size, l, c.projection_method, Cost::default()),
        EmbedderConfig::Roberta(c) | EmbedderConfig::RobertaCls(c) => {
            let cls = c.n_cls_tokens.unwrap_or(0);
            let read = if cls > 0 { cls } else { l };
            let cost = roberta(&c.encoder, blocks, (l + cls) as f64, sizes);
            (c.encoder.hidden_size, read, c.projection_method, cost)
        }
    };
    let joined = (width * vectors) as f64; // values per block
    let matrix = match projection {
        Projection::Concat => 0.0,
        Projection::ProjectionLayer => joined / e * d,
    };
    let join = Cost {
        matrix_flops: 2.0 * blocks * e * matrix,
        weights: matrix * sizes.weights,
        activations: blocks * (joined + e * d) * sizes.values,
        ..Cost::default()
    };
    encoder + join
}

/// Returns the cost of the logits of `rows` rows, and of sampling from them.
fn head(vocab: usize, width: usize, rows: f64, sizes: Sizes, bytes: f64) -> Cost {
    let (vocab, width) = (vocab as f64, width as f64);
    Cost {
        matrix_flops: 2.0 * rows * vocab * width,
        weights: vocab * width * bytes,
        activations: rows * (width + 2.0 * vocab) * sizes.values,
        ..Cost::default()
    }
}
