//! The costs of stacks of layers.

use block_transformer_family::StackShape;

use crate::cost::Cost;
use crate::sizes::Sizes;

/// Positions run through a causal stack together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodingBatch {
    /// All positions.
    pub positions: f64,
    /// Positions for which the last layer computes more than keys and values.
    pub finished: f64,
    /// Number of times that the matrices are read.
    pub passes: f64,
}

/// The keys that the positions of a [`DecodingBatch`] attend to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeysRead {
    /// Keys, summed over the positions.
    pub keys: f64,
    /// Keys, summed over the finished positions.
    pub finished_keys: f64,
    /// Reads of cached positions.
    pub read: f64,
}

/// Returns the cost of the matrix products of a causal stack.
pub(crate) fn matrices(stack: &StackShape, batch: DecodingBatch, sizes: Sizes) -> Cost {
    let (h, m) = (stack.width as f64, stack.mlp_width as f64);
    let (layers, matrices) = (stack.layers as f64, stack.matrix_params() as f64);
    // the output projection and the MLP of the last layer run for finished positions only
    let left_out = (batch.positions - batch.finished) * (h * h + 2.0 * h * m);
    // inputs and outputs of two norms, four matrix products, GELU and the sum
    let touched = layers * (14.0 * h + 4.0 * m);
    Cost {
        matrix_flops: 2.0 * (batch.positions * matrices - left_out),
        weights: batch.passes * matrices * sizes.weights,
        activations: batch.positions * touched * sizes.values,
        ..Cost::default()
    }
}

/// Returns the cost of attention in a causal stack.
pub(crate) fn attention(
    stack: &StackShape,
    batch: DecodingBatch,
    keys_read: KeysRead,
    sizes: Sizes,
) -> Cost {
    let (h, layers) = (stack.width as f64, stack.layers as f64);
    let keys = (layers - 1.0) * keys_read.keys + keys_read.finished_keys;
    Cost {
        attention_flops: 4.0 * h * keys,
        caches: (keys_read.read + batch.positions) * sizes.cache.bytes(stack) as f64,
        // queries and outputs
        activations: batch.positions * layers * 4.0 * h * sizes.values,
        ..Cost::default()
    }
}

/// Returns the cost of an encoder over `sequences` sequences of `length` positions, with full
/// attention.
pub(crate) fn encoder(stack: &StackShape, sequences: f64, length: f64, sizes: Sizes) -> Cost {
    let (h, m) = (stack.width as f64, stack.mlp_width as f64);
    let (layers, matrices) = (stack.layers as f64, stack.matrix_params() as f64);
    let positions = sequences * length;
    Cost {
        matrix_flops: 2.0 * positions * matrices,
        attention_flops: 4.0 * h * layers * positions * length,
        weights: matrices * sizes.weights,
        activations: positions * layers * (22.0 * h + 4.0 * m) * sizes.values,
        ..Cost::default()
    }
}

/// Returns the costs of the matrix products and of the attention of a T5 decoder. The decoder
/// decodes `length` tokens in each of `sequences` sequences, one token at a time. Each sequence has
/// `states` encoder states.
pub(crate) fn t5(
    stack: &StackShape,
    sequences: f64,
    length: f64,
    states: f64,
    sizes: Sizes,
) -> [Cost; 2] {
    let (h, m) = (stack.width as f64, stack.mlp_width as f64);
    let (layers, inner) = (stack.layers as f64, stack.kv_width as f64);
    // keys and values of the states are computed once per block
    let (of_states, of_tokens) =
        (layers * 2.0 * h * inner, layers * (6.0 * h * inner + 2.0 * h * m));
    let matrices = Cost {
        matrix_flops: 2.0 * sequences * (states * of_states + length * of_tokens),
        weights: (of_states + length * of_tokens) * sizes.weights,
        activations: sequences
            * length
            * layers
            * (20.0 * h + 8.0 * inner + 4.0 * m)
            * sizes.values,
        ..Cost::default()
    };
    let own = length * (length + 1.0) / 2.0;
    let keys = own + length * states;
    let attention = Cost {
        attention_flops: 4.0 * inner * layers * sequences * keys,
        caches: sequences * (keys + length + states) * 2.0 * inner * layers * sizes.values,
        ..Cost::default()
    };
    [matrices, attention]
}
