//! Shape of a model, in the JSON form of the published configurations.

use block_transformer_family::Conditioning;
use block_transformer_layers::{neox::NeoXConfig, roberta::RobertaConfig, t5::T5Config};
use serde::{Deserialize, Serialize};

/// Configuration of [`BlockTransformer`](crate::BlockTransformer).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockTransformerConfig {
    /// Rows of every token table and columns of the LM head.
    pub vocab_size: usize,
    /// Tokens per block (`L`).
    #[serde(default = "default_block_length")]
    pub block_length: usize,
    /// Context that the model is trained with, in tokens. Rotary positions have no hard limit.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// Turns a block of tokens into block embeddings.
    pub embedder: EmbedderConfig,
    /// Attends over block embeddings.
    pub block_decoder: NeoXConfig,
    /// Decodes the tokens of the next block from a context embedding.
    pub token_decoder: TokenDecoderConfig,
}

fn default_block_length() -> usize {
    4
}
fn default_positions() -> usize {
    2048
}
fn one() -> usize {
    1
}

/// The method by which the vectors of a block's tokens become block embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// The vectors are concatenated.
    Concat,
    /// A learned linear map is applied to all vectors.
    ProjectionLayer,
}

/// The embedder; the key `cls` selects the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cls")]
pub enum EmbedderConfig {
    /// An embedding table.
    #[serde(rename = "lookup")]
    Lookup(LookupConfig),
    /// A bidirectional encoder over the block.
    #[serde(rename = "roberta")]
    Roberta(RobertaEmbedderConfig),
    /// A bidirectional encoder over CLS tokens and the block; its output at the CLS tokens is used.
    #[serde(rename = "roberta_cls")]
    RobertaCls(RobertaEmbedderConfig),
}

/// Configuration of the lookup embedder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupConfig {
    /// Width of the table.
    pub hidden_size: usize,
    /// The method by which the token vectors are joined.
    pub projection_method: Projection,
    /// Embedding vectors per block (`E`).
    #[serde(default = "one")]
    pub n_embedding_tokens: usize,
}

/// Configuration of the RoBERTa embedders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RobertaEmbedderConfig {
    /// CLS tokens before the block; `roberta_cls` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_cls_tokens: Option<usize>,
    /// The method by which the token vectors are joined.
    pub projection_method: Projection,
    /// Embedding vectors per block (`E`).
    #[serde(default = "one")]
    pub n_embedding_tokens: usize,
    /// The encoder.
    #[serde(flatten)]
    pub encoder: RobertaConfig,
}

/// The token decoder; the key `cls` selects the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cls")]
pub enum TokenDecoderConfig {
    /// A GPT-NeoX stack.
    #[serde(rename = "gpt-neo-x")]
    NeoX(NeoXTokenDecoderConfig),
    /// A T5 decoder stack.
    #[serde(rename = "t5")]
    T5(T5TokenDecoderConfig),
}

/// Configuration of a GPT-NeoX token decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeoXTokenDecoderConfig {
    /// `prefix` or `summation`.
    pub decoding_strategy: Conditioning,
    /// Prefix vectors per context embedding (`r`); `prefix` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion_ratio: Option<usize>,
    /// The stack.
    #[serde(flatten)]
    pub stack: NeoXConfig,
}

/// Configuration of a T5 token decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct T5TokenDecoderConfig {
    /// `cross_attention`.
    pub decoding_strategy: Conditioning,
    /// The stack.
    #[serde(flatten)]
    pub stack: T5Config,
}

impl BlockTransformerConfig {
    /// Embedding vectors per block (`E`).
    pub fn embeddings_per_block(&self) -> usize {
        self.embedder.n_embedding_tokens()
    }

    /// Number of vectors into which one embedding is expanded (`r`).
    pub fn expansion(&self) -> usize {
        match &self.token_decoder {
            TokenDecoderConfig::NeoX(c) if c.decoding_strategy == Conditioning::Prefix => {
                c.expansion_ratio.unwrap_or(1)
            }
            _ => self.block_length / self.embeddings_per_block().max(1),
        }
    }
}

impl EmbedderConfig {
    /// Embedding vectors per block (`E`).
    pub fn n_embedding_tokens(&self) -> usize {
        match self {
            Self::Lookup(config) => config.n_embedding_tokens,
            Self::Roberta(config) | Self::RobertaCls(config) => config.n_embedding_tokens,
        }
    }

    /// Width of the vector of one token, number of these vectors per block, and the method by which
    /// they are joined.
    pub(crate) fn parts(&self, block_length: usize) -> (usize, usize, Projection) {
        match self {
            Self::Lookup(c) => (c.hidden_size, block_length, c.projection_method),
            Self::Roberta(c) => (c.encoder.hidden_size, block_length, c.projection_method),
            Self::RobertaCls(c) => {
                (c.encoder.hidden_size, c.n_cls_tokens.unwrap_or(1), c.projection_method)
            }
        }
    }
}

impl TokenDecoderConfig {
    /// Width of the token decoder (`H`).
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::NeoX(c) => c.stack.hidden_size,
            Self::T5(c) => c.stack.hidden_size,
        }
    }
}
