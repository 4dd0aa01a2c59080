//! Shape of a model, in the JSON form of the published configurations.

use block_transformer_family::{
    Conditioning, EmbedderShape, FamilyConfig, InvalidConfig, Stacks, TokenDecoderShape,
};
use block_transformer_layers::{neox::NeoXConfig, roberta::RobertaConfig, t5::T5Config};
use serde::{Deserialize, Serialize};

/// Configuration of [`BlockTransformer`](crate::BlockTransformer).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockTransformerConfig {
    /// Rows of every token table and of the LM head.
    pub vocab_size: usize,
    /// Tokens a block (`L`).
    #[serde(default = "default_block_length")]
    pub block_length: usize,
    /// Context the model is trained with, in tokens. Rotary positions have no hard limit.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// Block of tokens -> block embedding.
    pub embedder: EmbedderConfig,
    /// Attends over block embeddings.
    pub block_decoder: NeoXConfig,
    /// Context embedding -> the next block's tokens.
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

/// How the vectors of a block's tokens become block embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// Side by side.
    Concat,
    /// One learned map of all of them.
    ProjectionLayer,
}

/// Which embedder, by its `cls` key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cls")]
pub enum EmbedderConfig {
    /// An embedding table.
    #[serde(rename = "lookup")]
    Lookup(LookupConfig),
    /// A bidirectional encoder over the block.
    #[serde(rename = "roberta")]
    Roberta(RobertaEmbedderConfig),
    /// The same, read at CLS tokens put in front of the block.
    #[serde(rename = "roberta_cls")]
    RobertaCls(RobertaEmbedderConfig),
}

/// The lookup embedder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupConfig {
    /// Width of the table.
    pub hidden_size: usize,
    /// Concatenation or projection.
    pub projection_method: Projection,
    /// Embedding vectors a block (`E`).
    #[serde(default = "one")]
    pub n_embedding_tokens: usize,
}

/// The RoBERTa embedders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RobertaEmbedderConfig {
    /// CLS tokens in front of the block; `roberta_cls` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_cls_tokens: Option<usize>,
    /// Concatenation or projection.
    pub projection_method: Projection,
    /// Embedding vectors a block (`E`).
    #[serde(default = "one")]
    pub n_embedding_tokens: usize,
    /// The encoder.
    #[serde(flatten)]
    pub encoder: RobertaConfig,
}

/// Which token decoder, by its `cls` key.
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

/// How a context embedding reaches the token decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// As vectors in front of the token embeddings.
    Prefix,
    /// Added to the token embeddings.
    Summation,
    /// As encoder states to attend to.
    CrossAttention,
}

/// A GPT-NeoX token decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeoXTokenDecoderConfig {
    /// `prefix` or `summation`.
    pub decoding_strategy: Strategy,
    /// Prefix vectors an embedding (`r`); `prefix` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion_ratio: Option<usize>,
    /// The stack.
    #[serde(flatten)]
    pub stack: NeoXConfig,
}

/// A T5 token decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct T5TokenDecoderConfig {
    /// `cross_attention`.
    pub decoding_strategy: Strategy,
    /// The stack.
    #[serde(flatten)]
    pub stack: T5Config,
}

impl EmbedderConfig {
    /// Embedding vectors a block (`E`).
    pub fn n_embedding_tokens(&self) -> usize {
        match self {
            Self::Lookup(config) => config.n_embedding_tokens,
            Self::Roberta(config) | Self::RobertaCls(config) => config.n_embedding_tokens,
        }
    }

    /// Width of one token's vector, how many of them a block has, and how they are joined.
    pub(crate) fn parts(&self, block_length: usize) -> (usize, usize, Projection) {
        match self {
            Self::Lookup(c) => (c.hidden_size, block_length, c.projection_method),
            Self::Roberta(c) => (c.encoder.hidden_size, block_length, c.projection_method),
            Self::RobertaCls(c) => {
                (c.encoder.hidden_size, c.n_cls_tokens.unwrap_or(1), c.projection_method)
            }
        }
    }

    fn num_params(&self, vocab: usize, block_length: usize, width: usize) -> usize {
        let tables = match self {
            Self::Lookup(c) => vocab * c.hidden_size,
            Self::Roberta(c) | Self::RobertaCls(c) => c.encoder.num_params(vocab),
        };
        match self.projected(block_length) {
            0 => tables,
            from => tables + (from + 1) * width,
        }
    }

    /// Numbers that a projection layer makes a vector of; 0 without one.
    fn projected(&self, block_length: usize) -> usize {
        let (part, parts, projection) = self.parts(block_length);
        match projection {
            Projection::Concat => 0,
            Projection::ProjectionLayer => part * parts / self.n_embedding_tokens(),
        }
    }

    fn num_matrix_params(&self, block_length: usize, width: usize) -> usize {
        let encoder = match self {
            Self::Lookup(_) => 0,
            Self::Roberta(c) | Self::RobertaCls(c) => c.encoder.num_matrix_params(),
        };
        encoder + self.projected(block_length) * width
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

    /// Vectors the expansion makes of one embedding (`r`).
    pub fn expansion(&self, block_length: usize, embeddings: usize) -> usize {
        match self {
            Self::NeoX(c) if c.decoding_strategy == Strategy::Prefix => {
                c.expansion_ratio.unwrap_or(1)
            }
            _ => block_length / embeddings.max(1),
        }
    }
}

impl BlockTransformerConfig {
    /// Embedding vectors a block (`E`).
    pub fn embeddings_per_block(&self) -> usize {
        self.embedder.n_embedding_tokens()
    }

    /// Vectors the expansion makes of one embedding (`r`).
    pub fn expansion(&self) -> usize {
        self.token_decoder.expansion(self.block_length, self.embeddings_per_block())
    }

    /// Parameters of the token tables and the LM head.
    pub fn num_params_embedding(&self) -> usize {
        let embedder = match &self.embedder {
            EmbedderConfig::Lookup(c) => c.hidden_size,
            EmbedderConfig::Roberta(c) | EmbedderConfig::RobertaCls(c) => c.encoder.hidden_size,
        };
        // T5 ties its table to its head
        let tables = if matches!(self.token_decoder, TokenDecoderConfig::T5(_)) { 1 } else { 2 };
        self.vocab_size * (embedder + tables * self.token_decoder.hidden_size())
    }

    fn check_text(&self) -> Result<(), String> {
        let (l, e) = (self.block_length, self.embeddings_per_block());
        if self.vocab_size < 2 {
            return Err("vocab_size: must be at least 2".into());
        }
        if l == 0 || e == 0 {
            return Err("block_length and embedder.n_embedding_tokens must be at least 1".into());
        }
        self.block_decoder.check("block_decoder")?;
        let width = self.block_decoder.hidden_size;
        let (part, parts, projection) = self.embedder.parts(l);
        if parts % e != 0 {
            return Err(format!(
                "embedder: {e} embeddings a block do not divide its {parts} vectors"
            ));
        }
        if projection == Projection::Concat && part * parts / e != width {
            return Err(format!(
                "embedder.hidden_size: {} vectors of {part} side by side are {}, but block_decoder.hidden_size is {width}",
                parts / e,
                part * parts / e
            ));
        }
        if let EmbedderConfig::Roberta(c) | EmbedderConfig::RobertaCls(c) = &self.embedder {
            let n_cls = c.n_cls_tokens.unwrap_or(0);
            let is_cls = matches!(self.embedder, EmbedderConfig::RobertaCls(_));
            if is_cls != (n_cls > 0) {
                return Err("embedder.n_cls_tokens: needed by roberta_cls, and only by it".into());
            }
            if c.encoder.num_attention_heads == 0
                || c.encoder.hidden_size % c.encoder.num_attention_heads != 0
            {
                return Err("embedder.num_attention_heads: must divide embedder.hidden_size".into());
            }
            if c.encoder.max_position_embeddings < l + n_cls + 2 {
                return Err(format!(
                    "embedder.max_position_embeddings: a block of {l} with {n_cls} CLS tokens needs {}",
                    l + n_cls + 2
                ));
            }
        }
        match &self.token_decoder {
            TokenDecoderConfig::NeoX(c) => {
                c.stack.check("token_decoder")?;
                match (c.decoding_strategy, c.expansion_ratio) {
                    (Strategy::CrossAttention, _) => {
                        return Err(
                            "token_decoder.decoding_strategy: cross_attention needs cls t5".into(),
                        );
                    }
                    (Strategy::Prefix, Some(0)) => {
                        return Err("token_decoder.expansion_ratio: must be at least 1".into());
                    }
                    (Strategy::Summation, Some(_)) => {
                        return Err("token_decoder.expansion_ratio: only prefix has one".into());
                    }
                    (Strategy::Summation, None) if l % e != 0 => {
                        return Err(format!(
                            "block_length: {l} is no multiple of the {e} embeddings a block"
                        ));
                    }
                    _ => {}
                }
            }
            TokenDecoderConfig::T5(c) => {
                if c.decoding_strategy != Strategy::CrossAttention {
                    return Err(
                        "token_decoder.decoding_strategy: t5 has cross_attention only".into()
                    );
                }
                if c.stack.num_attention_heads == 0 || c.stack.d_kv == 0 || l % e != 0 {
                    return Err("token_decoder: num_attention_heads and d_kv must be positive, and the embeddings a block divide block_length".into());
                }
            }
        }
        Ok(())
    }
}

impl FamilyConfig for BlockTransformerConfig {
    fn family(&self) -> &'static str {
        "block"
    }

    fn block_length(&self) -> usize {
        self.block_length
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn with_vocab_size(self, vocab_size: usize) -> Self {
        Self { vocab_size, ..self }
    }

    fn max_position_embeddings(&self) -> usize {
        self.max_position_embeddings
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        self.check_text().map_err(InvalidConfig::from_text)
    }

    fn num_params(&self) -> usize {
        self.num_params_non_embedding() + self.num_params_embedding()
    }

    fn num_params_non_embedding(&self) -> usize {
        let d = self.block_decoder.hidden_size;
        let expanded = self.token_decoder.hidden_size() * self.expansion();
        let decoder = match &self.token_decoder {
            TokenDecoderConfig::NeoX(c) => c.stack.num_params(),
            TokenDecoderConfig::T5(c) => c.stack.num_params(),
        };
        let embedder = self.embedder.num_params(0, self.block_length, d);
        embedder + self.block_decoder.num_params() + (d + 1) * expanded + decoder
    }

    fn num_matrix_params(&self) -> usize {
        let (d, h) = (self.block_decoder.hidden_size, self.token_decoder.hidden_size());
        let decoder = match &self.token_decoder {
            TokenDecoderConfig::NeoX(c) => c.stack.num_matrix_params() + self.vocab_size * h,
            TokenDecoderConfig::T5(c) => c.stack.num_matrix_params(),
        };
        let embedder = self.embedder.num_matrix_params(self.block_length, d);
        embedder + self.block_decoder.num_matrix_params() + d * h * self.expansion() + decoder
    }

    fn stacks(&self) -> Stacks {
        let (l, e) = (self.block_length, self.embeddings_per_block());
        let (stack, conditioning) = match &self.token_decoder {
            TokenDecoderConfig::NeoX(c) => {
                let prefix = c.decoding_strategy == Strategy::Prefix;
                let conditioning =
                    if prefix { Conditioning::Prefix } else { Conditioning::Summation };
                ((&c.stack).into(), conditioning)
            }
            TokenDecoderConfig::T5(c) => ((&c.stack).into(), Conditioning::CrossAttention),
        };
        let encoder = match &self.embedder {
            EmbedderConfig::Lookup(_) => None,
            EmbedderConfig::Roberta(c) | EmbedderConfig::RobertaCls(c) => {
                Some(((&c.encoder).into(), l + c.n_cls_tokens.unwrap_or(0)))
            }
        };
        let (part, parts, _) = self.embedder.parts(l);
        Stacks {
            block_length: l,
            embeddings_per_block: e,
            vocab_size: self.vocab_size,
            context: (&self.block_decoder).into(),
            embedder: Some(EmbedderShape {
                encoder,
                joined: part * parts,
                projection_params: self.embedder.projected(l) * self.block_decoder.hidden_size,
            }),
            token: Some(TokenDecoderShape {
                stack,
                vectors: e * self.expansion(),
                conditioning,
                // T5 ties its table to its head
                tied_head: conditioning == Conditioning::CrossAttention,
            }),
        }
    }
}
