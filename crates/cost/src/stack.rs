//! What stacks of layers cost.

use block_transformer_layers::neox::NeoXConfig;
use block_transformer_layers::roberta::RobertaConfig;
use block_transformer_layers::t5::T5Config;

use crate::{Cost, Sizes};

/// Positions run through a causal stack together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    /// All of them.
    pub positions: f64,
    /// Those of which the last layer makes more than keys and values.
    pub finished: f64,
    /// Times that the matrices are read.
    pub passes: f64,
}

/// What those positions attend to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeysRead {
    /// Keys, summed over the positions.
    pub keys: f64,
    /// Keys, summed over the finished positions.
    pub finished_keys: f64,
    /// Cached positions read, each as often as it is.
    pub read: f64,
}

/// Products with the matrices of a GPT-NeoX stack.
pub(crate) fn neox(stack: &NeoXConfig, run: Batch, sizes: Sizes) -> Cost {
    let (h, m) = (stack.hidden_size as f64, stack.intermediate() as f64);
    let (layers, matrices) = (stack.num_hidden_layers as f64, stack.num_matrix_params() as f64);
    // the output projection and the MLP of the last layer
    let left_out = (run.positions - run.finished) * (h * h + 2.0 * h * m);
    // two norms, four products, GELU and the sum, each of which reads its inputs and writes
    let touched = layers * (14.0 * h + 4.0 * m);
    Cost {
        matrix_flops: 2.0 * (run.positions * matrices - left_out),
        weights: run.passes * matrices * sizes.weights,
        activations: run.positions * touched * sizes.values,
        ..Cost::default()
    }
}

/// Attention in a GPT-NeoX stack.
pub(crate) fn neox_attention(
    stack: &NeoXConfig,
    run: Batch,
    reach: KeysRead,
    sizes: Sizes,
) -> Cost {
    let (h, layers) = (stack.hidden_size as f64, stack.num_hidden_layers as f64);
    let keys = (layers - 1.0) * reach.keys + reach.finished_keys;
    Cost {
        attention_flops: 4.0 * h * keys,
        caches: (reach.read + run.positions) * stack.kv_bytes(1) as f64 * sizes.values,
        // queries, and what attention gives
        activations: run.positions * layers * 4.0 * h * sizes.values,
        ..Cost::default()
    }
}

/// A RoBERTa encoder over `sequences` of `length` positions, which see each other.
pub(crate) fn roberta(stack: &RobertaConfig, sequences: f64, length: f64, sizes: Sizes) -> Cost {
    let (h, m) = (stack.hidden_size as f64, stack.intermediate() as f64);
    let (layers, matrices) = (stack.num_hidden_layers as f64, stack.num_matrix_params() as f64);
    let positions = sequences * length;
    Cost {
        matrix_flops: 2.0 * positions * matrices,
        attention_flops: 4.0 * h * layers * positions * length,
        weights: matrices * sizes.weights,
        activations: positions * layers * (22.0 * h + 4.0 * m) * sizes.values,
        ..Cost::default()
    }
}

/// A T5 decoder that writes `length` tokens of each of `sequences`, one at a time, and attends to
/// `states` encoder states.
pub(crate) fn t5(
    stack: &T5Config,
    sequences: f64,
    length: f64,
    states: f64,
    sizes: Sizes,
) -> [Cost; 2] {
    let (h, m) = (stack.hidden_size as f64, stack.d_ff as f64);
    let (layers, inner) =
        (stack.num_hidden_layers as f64, (stack.num_attention_heads * stack.d_kv) as f64);
    // keys and values of the states are made once a block
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
