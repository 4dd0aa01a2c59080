//! The RoBERTa encoder (Liu et al., arXiv 1907.11692): bidirectional, post-norm.

use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::{Bool, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::attention::{attend, merge_heads, score_scale, split_heads};
use crate::embedding::embed;
use crate::gelu::gelu_between;
use crate::init::Init;
use crate::invalid::InvalidConfig;
use crate::linear::apply;
use crate::recompute::run_layer;

/// Shape of a RoBERTa encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RobertaConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer; `None` means 4 x `hidden_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Rows of the position table: at least the positions of the longest block (including CLS
    /// tokens) plus 2.
    pub max_position_embeddings: usize,
}

const EPS: f64 = 1e-5;
const STD: f64 = 0.02;

impl RobertaConfig {
    /// Keys of the configuration table.
    pub const KEYS: &[&str] = &[
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ];

    /// Checks that the encoder can run sequences of `time` positions.
    ///
    /// # Errors
    /// Returns an error that names the first key with an invalid value.
    pub fn check(&self, time: usize) -> Result<(), InvalidConfig> {
        let (layers, heads) = (self.num_hidden_layers, self.num_attention_heads);
        InvalidConfig::check_layers(self.hidden_size, layers, heads, self.intermediate_size)?;
        let rows = self.max_position_embeddings;
        InvalidConfig::check_size("max_position_embeddings", rows, InvalidConfig::MAX_WIDTH)?;
        // positions of tokens start at 2
        if rows < time + 2 {
            let reason = format!("{rows} is too few; blocks of {time} positions need {}", time + 2);
            return Err(InvalidConfig::new("max_position_embeddings", reason));
        }
        Ok(())
    }

    /// Width of the feed-forward layer.
    pub fn intermediate(&self) -> usize {
        self.intermediate_size.unwrap_or(4 * self.hidden_size)
    }

    /// Number of parameters of the encoder, including its embeddings.
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

    fn forward(&self, x: Tensor<3>, hidden: &Tensor<4, Bool>) -> Tensor<3> {
        let [_, _, width] = x.dims();
        let heads = |linear: &Linear| split_heads(apply(linear, x.clone()), self.heads);
        let scale = score_scale(width / self.heads);
        let (query, key, value) = (heads(&self.query), heads(&self.key), heads(&self.value));
        let attended = merge_heads(attend(query, key, value, scale, None, Some(hidden.clone())));
        let x = self.attention_norm.forward(apply(&self.attention_dense, attended) + x);
        let format = self.output.weight.val().dtype();
        let fed = apply(&self.output, gelu_between(apply(&self.intermediate, x.clone()), format));
        self.output_norm.forward(fed + x)
    }
}

/// The encoder: embeddings and layers.
#[derive(Module, Debug)]
pub struct RobertaEncoder {
    embeddings: RobertaEmbeddings,
    layer: Vec<RobertaLayer>,
}

impl RobertaEncoder {
    /// The id of the padding token. Every padding token also has this value as its position.
    pub const PAD: i64 = 1;

    /// An encoder over `vocab` ids with the parameters of `init`.
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

    /// Encodes rows of ids. Positions count from 2 over the ids that are not [`PAD`](Self::PAD);
    /// padding has position 1.
    ///
    /// # Shapes
    /// - `ids`: `[rows, time]`
    /// - `is_token`: `[rows, time]`, false at keys that are hidden
    /// - output: `[rows, time, hidden]`
    pub fn forward(&self, ids: Tensor<2, Int>, is_token: Tensor<2, Bool>) -> Tensor<3> {
        let [rows, time] = ids.dims();
        let not_pad = ids.clone().not_equal_scalar(Self::PAD).int();
        let positions = not_pad.clone().cumsum(1) * not_pad + Self::PAD;
        let embeddings = &self.embeddings;
        let kind = embeddings.token_type_embeddings.weight.val().unsqueeze(); // [1, 1, h]
        let mut x = embeddings.norm.forward(
            embed(&embeddings.word_embeddings, ids)
                + embed(&embeddings.position_embeddings, positions)
                + kind,
        );
        let hidden = is_token.bool_not().reshape([rows, 1, 1, time]);
        let forward = move |layer: &RobertaLayer, x: Tensor<3>, _| layer.forward(x, &hidden);
        for layer in &self.layer {
            x = run_layer(layer, x, Vec::new(), forward.clone());
        }
        x
    }
}
