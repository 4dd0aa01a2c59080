//! Shapes of layer stacks, from which costs and memory limits are computed.

use block_transformer_layers::neox::NeoXConfig;
use block_transformer_layers::roberta::RobertaConfig;
use block_transformer_layers::t5::T5Config;
use serde::{Deserialize, Serialize};

/// Shape of a stack of transformer layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackShape {
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the keys of a position in a layer, over all heads. The values have the same width.
    pub kv_width: usize,
    /// Inner width of the MLP.
    pub mlp_width: usize,
    /// Attention heads per layer.
    pub heads: usize,
    /// Whether the input of the MLP is the output of attention, and not that of the layer.
    pub sequential: bool,
    /// Whether every layer also attends to encoder states.
    pub cross_attention: bool,
}

impl StackShape {
    /// A stack with self-attention only, whose heads together are as wide as the residual stream.
    pub fn with_self_attention(
        layers: usize,
        width: usize,
        heads: usize,
        mlp_width: usize,
    ) -> Self {
        let (sequential, cross_attention) = (true, false);
        Self { layers, width, kv_width: width, mlp_width, heads, sequential, cross_attention }
    }

    /// Parameters in the matrices of all linear layers.
    pub fn matrix_params(&self) -> usize {
        let attentions = if self.cross_attention { 2 } else { 1 };
        self.layers * self.width * (attentions * 4 * self.kv_width + 2 * self.mlp_width)
    }

    /// Number of cached elements (keys and values) per position, over all layers.
    pub fn kv_values(&self) -> usize {
        2 * self.layers * self.kv_width
    }
}

impl From<&NeoXConfig> for StackShape {
    fn from(config: &NeoXConfig) -> Self {
        let stack = Self::with_self_attention(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate(),
        );
        Self { sequential: !config.use_parallel_residual, ..stack }
    }
}

impl From<&RobertaConfig> for StackShape {
    fn from(config: &RobertaConfig) -> Self {
        Self::with_self_attention(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate(),
        )
    }
}

impl From<&T5Config> for StackShape {
    fn from(config: &T5Config) -> Self {
        Self {
            layers: config.num_hidden_layers,
            width: config.hidden_size,
            kv_width: config.num_attention_heads * config.d_kv,
            mlp_width: config.d_ff,
            heads: config.num_attention_heads,
            sequential: true,
            cross_attention: true,
        }
    }
}

/// Shapes of all stacks of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stacks {
    /// Tokens per block; 1 for models without blocks.
    pub block_length: usize,
    /// Positions per block in the context stack.
    pub embeddings_per_block: usize,
    /// Columns of the LM head.
    pub vocab_size: usize,
    /// The stack that attends over the whole sequence: the block decoder, or the only stack of a
    /// model without blocks.
    pub context: StackShape,
    /// The embedder of blocks; `None` for models without blocks.
    pub embedder: Option<EmbedderShape>,
    /// The decoder of the tokens inside a block; `None` for models without blocks.
    pub token: Option<TokenDecoderShape>,
}

impl Stacks {
    /// Parameters in the matrices of linear layers. An LM head counts unless it is a token table.
    pub fn matrix_params(&self) -> usize {
        let Self { vocab_size, context, embeddings_per_block, .. } = *self;
        let embedder = self.embedder.map_or(0, |embedder| {
            let encoder = embedder.encoder.map_or(0, |(stack, _)| stack.matrix_params());
            encoder + embedder.projection_params
        });
        let decoder = self.token.map_or(context.width * vocab_size, |token| {
            let head = if token.tied_head { 0 } else { token.stack.width * vocab_size };
            let expansion = token.expansion_params(context.width, embeddings_per_block);
            expansion + token.stack.matrix_params() + head
        });
        embedder + context.matrix_params() + decoder
    }

    /// Parameters in the matrices of the layers of all stacks.
    pub fn hidden_matrix_params(&self) -> usize {
        self.stacks().map(|stack| stack.matrix_params()).sum()
    }

    /// Elements of the largest matrix in the layers of a stack.
    pub fn largest_hidden_matrix(&self) -> usize {
        // the largest of the projections of attention maps to queries, keys and values
        let largest = |stack: StackShape| stack.width * stack.mlp_width.max(3 * stack.kv_width);
        self.stacks().map(largest).max().unwrap_or(0)
    }

    /// Rows of the largest matrix product that adds a block to the context: its embeddings, or the positions of an
    /// encoder.
    pub fn append_rows(&self) -> usize {
        let encoder = self.embedder.and_then(|embedder| embedder.encoder);
        encoder.map_or(1, |(_, positions)| positions).max(self.embeddings_per_block)
    }

    /// Rows of the largest matrix product of a decoding step, for each sequence.
    pub fn step_rows(&self) -> usize {
        let start = self.token.map_or(1, |token| match token.conditioning {
            Conditioning::CrossAttention => token.vectors,
            Conditioning::Prefix | Conditioning::Summation => token.first_positions(),
        });
        self.append_rows().max(start)
    }

    /// The stacks of layers.
    fn stacks(&self) -> impl Iterator<Item = StackShape> {
        let encoder = self.embedder.and_then(|embedder| embedder.encoder).map(|(stack, _)| stack);
        let token = self.token.map(|token| token.stack);
        [encoder, Some(self.context), token].into_iter().flatten()
    }
}

/// Shape of an embedder of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbedderShape {
    /// The encoder and the positions it runs per block; `None` for a table lookup.
    pub encoder: Option<(StackShape, usize)>,
    /// Elements per block that are joined into its block embeddings.
    pub joined: usize,
    /// Parameters of the matrix that joins them to one block embedding; 0 for a concatenation.
    pub projection_params: usize,
}

/// Shape of a token decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenDecoderShape {
    /// The stack.
    pub stack: StackShape,
    /// Vectors per block that the context embeddings are expanded to.
    pub vectors: usize,
    /// The way in which these vectors are passed to the stack.
    pub conditioning: Conditioning,
    /// Whether the LM head is the token table.
    pub tied_head: bool,
}

/// The way in which a context embedding is passed to the token decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conditioning {
    /// As vectors before the token embeddings.
    Prefix,
    /// Added to the token embeddings.
    Summation,
    /// As encoder states.
    CrossAttention,
}

impl TokenDecoderShape {
    /// Positions run before the first token of a block is known: the prefix, or BOS.
    pub fn first_positions(&self) -> usize {
        if self.conditioning == Conditioning::Prefix { self.vectors } else { 1 }
    }

    /// Positions that the cache holds for a block of `block_length` tokens. The last token of a block
    /// is never an input.
    pub fn cached_positions(&self, block_length: usize) -> usize {
        self.first_positions() + block_length - 1
    }

    /// Parameters of the matrix that expands one context embedding of width `context_width`, where
    /// a block has `embeddings` of them.
    pub fn expansion_params(&self, context_width: usize, embeddings: usize) -> usize {
        context_width * self.stack.width * self.vectors / embeddings
    }
}
