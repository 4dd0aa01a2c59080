//! The phases of decoding a token and of prefilling a prompt.

use block_transformer_family::{
    Conditioning, EmbedderShape, FamilyConfig, Stacks, TokenDecoderShape,
};

use crate::cost::{Cost, Phases};
use crate::sizes::Sizes;
use crate::stack::{DecodingBatch, KeysRead, attention, encoder, matrices, t5};

/// The largest number of positions of a prompt that the engine runs in one pass.
const CHUNK: usize = block_transformer_generation::PREFILL_CHUNK;

/// Returns the cost of one decoding step after `context` tokens. The step decodes one token of each
/// of `batch` sequences. With blocks, the cost is the mean over the tokens of a block.
pub fn decode<C: FamilyConfig>(config: &C, batch: usize, context: usize, sizes: Sizes) -> Phases {
    let (stacks, rows, context) = (config.stacks(), batch as f64, context as f64);
    if let Some(token) = &stacks.token {
        return block(&stacks, token, rows, context, sizes);
    }
    let batch = DecodingBatch { positions: rows, finished: rows, passes: 1.0 };
    let keys = rows * (context + 1.0);
    let keys_read = KeysRead { keys, finished_keys: keys, read: rows * context };
    Phases(vec![
        matrices(&stacks.context, batch, sizes),
        attention(&stacks.context, batch, keys_read, sizes),
        head(stacks.vocab_size, stacks.context.width, rows, sizes, sizes.weights),
    ])
}

/// Returns the cost of decoding one block of each of `rows` sequences, divided by the block length.
/// This is the mean cost of a step that decodes one token of each sequence.
fn block(
    stacks: &Stacks,
    token: &TokenDecoderShape,
    rows: f64,
    context: f64,
    sizes: Sizes,
) -> Phases {
    let (e, l) = (stacks.embeddings_per_block as f64, stacks.block_length as f64);
    let batch = DecodingBatch { positions: rows * e, finished: rows * e, passes: 1.0 };
    let keys = rows * e * (context / l * e + e);
    let keys_read = KeysRead { keys, finished_keys: keys, read: rows * context / l * e };
    let (d, h) = (stacks.context.width, token.stack.width);
    let vectors = token.vectors as f64;
    let expansion = token.expansion_params(d, stacks.embeddings_per_block) as f64;
    let expansion = Cost {
        matrix_flops: 2.0 * rows * e * expansion,
        weights: expansion * sizes.weights,
        activations: rows * (e * d as f64 + vectors * h as f64) * sizes.values,
        ..Cost::default()
    };
    let [token_matrices, token_attention] = match token.conditioning {
        Conditioning::CrossAttention => t5(&token.stack, rows, l, vectors, sizes),
        Conditioning::Prefix | Conditioning::Summation => {
            let first = token.first_positions() as f64;
            let positions = rows * (first + l - 1.0);
            let batch = DecodingBatch { positions, finished: rows * l, passes: l };
            // the first positions (prefix or BOS) attend causally to each other; input token i
            // (from 1 to l - 1) attends to them and to i tokens, itself included
            let next = (l - 1.0) * first + l * (l - 1.0) / 2.0;
            let keys_read = KeysRead {
                keys: rows * (first * (first + 1.0) / 2.0 + next),
                finished_keys: rows * (first + next),
                read: rows * next,
            };
            [matrices(&token.stack, batch, sizes), attention(&token.stack, batch, keys_read, sizes)]
        }
    };
    // a tied head is the token embedding table, which is always stored in the format of the
    // activations
    let head_bytes = if token.tied_head { sizes.values } else { sizes.weights };
    let phases = [
        embedder(stacks, rows, sizes),
        matrices(&stacks.context, batch, sizes),
        attention(&stacks.context, batch, keys_read, sizes),
        expansion,
        token_matrices,
        token_attention,
        head(stacks.vocab_size, h, rows, sizes, head_bytes) * l,
    ];
    Phases(phases.map(|cost| cost * (1.0 / l)).into())
}

/// Returns the cost of prefilling a prompt of `tokens` tokens, up to the output of the context
/// stack for the last block. Token decoder and LM head are not included.
pub fn prefill<C: FamilyConfig>(config: &C, tokens: usize, sizes: Sizes) -> Phases {
    let stacks = config.stacks();
    let blocks = tokens.div_ceil(stacks.block_length);
    let (batch, keys_read) = chunks(blocks, stacks.embeddings_per_block);
    let mut embedder = embedder(&stacks, blocks as f64, sizes);
    embedder.weights *= batch.passes;
    Phases(vec![
        embedder,
        matrices(&stacks.context, batch, sizes),
        attention(&stacks.context, batch, keys_read, sizes),
    ])
}

/// Counts the positions and keys of a prompt that is run in chunks. The prompt has `blocks` blocks
/// with `e` positions each. A position attends to the keys of its own block and of all blocks
/// before that block.
fn chunks(blocks: usize, e: usize) -> (DecodingBatch, KeysRead) {
    let most = (CHUNK / e).max(1);
    let positions = (blocks * e) as f64;
    let mut batch = DecodingBatch { positions, finished: 0.0, passes: 0.0 };
    let mut keys_read = KeysRead { keys: 0.0, finished_keys: 0.0, read: 0.0 };
    for start in (0..blocks).step_by(most) {
        let end = blocks.min(start + most);
        batch.passes += 1.0;
        batch.finished += e as f64;
        // block b attends to b + 1 blocks, start <= b < end
        let attended = (end * (end + 1) - start * (start + 1)) / 2;
        keys_read.keys += (attended * e * e) as f64;
        keys_read.finished_keys += (end * e * e) as f64;
        keys_read.read += (start * e) as f64;
    }
    (batch, keys_read)
}

/// Returns the cost of embedding `blocks` blocks; nothing without an embedder.
fn embedder(stacks: &Stacks, blocks: f64, sizes: Sizes) -> Cost {
    let Some(EmbedderShape { encoder: shape, joined, projection_params }) = stacks.embedder else {
        return Cost::default();
    };
    let encoder = shape.map_or_else(Cost::default, |(stack, positions)| {
        encoder(&stack, blocks, positions as f64, sizes)
    });
    let (d, e) = (stacks.context.width as f64, stacks.embeddings_per_block as f64);
    let (joined, matrix) = (joined as f64, projection_params as f64);
    let join = Cost {
        matrix_flops: 2.0 * blocks * e * matrix,
        weights: matrix * sizes.weights,
        activations: blocks * (joined + e * d) * sizes.values,
        ..Cost::default()
    };
    encoder + join
}

/// Returns the cost of computing `rows` rows of logits and of sampling from these rows.
fn head(vocab: usize, width: usize, rows: f64, sizes: Sizes, bytes: f64) -> Cost {
    let (vocab, width) = (vocab as f64, width as f64);
    Cost {
        matrix_flops: 2.0 * rows * vocab * width,
        weights: vocab * width * bytes,
        activations: rows * (width + 2.0 * vocab) * sizes.values,
        ..Cost::default()
    }
}
