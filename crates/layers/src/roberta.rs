//! The RoBERTa encoder (Liu et al., arXiv 1907.11692), bidirectional, post-norm.

use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::{Bool, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::linear::apply;
use crate::{AttentionMask, Init, attend, gelu, merge_heads, split_heads};

/// Shape of a RoBERTa encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RobertaConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads a layer.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer; 4 x `hidden_size` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Rows of the position table; two more than the tokens a block (with CLS) can hold.
    pub max_position_embeddings: usize,
}

const EPS: f64 = 1e-5;
const STD: f64 = 0.02;

impl RobertaConfig {
    /// Width of the feed-forward layer.
    pub fn intermediate(&self) -> usize {
        self.intermediate_size.unwrap_or(4 * self.hidden_size)
    }

    /// Parameters in the matrices of its linear layers.
    pub fn num_matrix_params(&self) -> usize {
        let (h, m) = (self.hidden_size, self.intermediate());
        self.num_hidden_layers * (4 * h * h + 2 * h * m)
    }

    /// Parameters of the encoder with its embeddings.
    pub fn num_params(&self, vocab: usize) -> usize {
        let (h, m) = (self.hidden_size, self.intermediate());
        let layer = 4 * (h * h + h) + 2 * h * m + m + h + 4 * h;
        self.num_hidden_layers * layer + (vocab + self.max_position_embeddings + 1 + 2) * h
    }
}

/// Token, position and type embeddings with their norm.
#[derive(Module, Debug)]
pub struct RobertaEmbeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    norm: LayerNorm,
}

/// One encoder layer.
#[derive(Module, Debug)]
pub struct RobertaLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_dense: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: usize,
}

impl RobertaLayer {
    fn new(config: &RobertaConfig, init: &Init) -> Self {
        let (h, m) = (config.hidden_size, config.intermediate());
        Self {
            query: init.linear("query", h, h, true, STD),
            key: init.linear("key", h, h, true, STD),
            value: init.linear("value", h, h, true, STD),
            attention_dense: init.linear("attention_dense", h, h, true, STD),
            attention_norm: init.layer_norm("attention_norm", h, EPS),
            intermediate: init.linear("intermediate", h, m, true, STD),
            output: init.linear("output", m, h, true, STD),
            output_norm: init.layer_norm("output_norm", h, EPS),
            heads: config.num_attention_heads,
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let [_, _, width] = x.dims();
        let heads = |linear: &Linear| split_heads(apply(linear, x.clone()), self.heads);
        let scale = ((width / self.heads) as f64).powf(-0.5);
        let (query, key, value) = (heads(&self.query), heads(&self.key), heads(&self.value));
        let attended = merge_heads(attend(query, key, value, scale, None, mask));
        let x = self.attention_norm.forward(apply(&self.attention_dense, attended) + x);
        let fed = apply(&self.output, gelu(apply(&self.intermediate, x.clone())));
        self.output_norm.forward(fed + x)
    }
}

/// Embeddings and layers.
#[derive(Module, Debug)]
pub struct RobertaEncoder {
    embeddings: RobertaEmbeddings,
    layer: Vec<RobertaLayer>,
}

impl RobertaEncoder {
    /// The padding id, which also is the position of padding.
    pub const PAD: i64 = 1;

    /// An encoder over `vocab` ids at `init`.
    pub fn new(config: &RobertaConfig, vocab: usize, init: &Init) -> Self {
        let h = config.hidden_size;
        let embed = init.at("embeddings");
        let layer = init.at("layer");
        Self {
            embeddings: RobertaEmbeddings {
                word_embeddings: embed.embedding("word_embeddings", vocab, h, STD),
                position_embeddings: embed.embedding(
                    "position_embeddings",
                    config.max_position_embeddings,
                    h,
                    STD,
                ),
                token_type_embeddings: embed.embedding("token_type_embeddings", 1, h, STD),
                norm: embed.layer_norm("norm", h, EPS),
            },
            layer: (0..config.num_hidden_layers)
                .map(|i| RobertaLayer::new(config, &layer.at(i)))
                .collect(),
        }
    }

    /// Positions count from 2 over the ids that are not padding; padding has position 1.
    ///
    /// # Shapes
    /// - `ids`: `[rows, time]`
    /// - `real`: `[rows, time]`, false where keys are hidden
    /// - output: `[rows, time, hidden]`
    pub fn forward(&self, ids: Tensor<2, Int>, real: Tensor<2, Bool>) -> Tensor<3> {
        let [rows, time] = ids.dims();
        let not_pad = ids.clone().not_equal_scalar(Self::PAD).int();
        let positions = not_pad.clone().cumsum(1) * not_pad + Self::PAD;
        let embeddings = &self.embeddings;
        let kind = embeddings.token_type_embeddings.weight.val().unsqueeze(); // [1, 1, h]
        let mut x = embeddings.norm.forward(
            embeddings.word_embeddings.forward(ids)
                + embeddings.position_embeddings.forward(positions)
                + kind,
        );
        let mask = AttentionMask::Hidden(real.bool_not().reshape([rows, 1, 1, time]));
        for layer in &self.layer {
            x = layer.forward(x, &mask);
        }
        x
    }
}
