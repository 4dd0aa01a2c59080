//! The token decoder: from context embeddings to the tokens of the next block.

use block_transformer_layers::neox::NeoXStack;
use block_transformer_layers::t5::T5Stack;
use block_transformer_layers::{BlockConv, Init, Positions, Rotary, causal_by_block, project};
use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};

use crate::config::{BlockTransformerConfig, Strategy, TokenDecoderConfig};
use crate::embedder::BOS;

/// A GPT-NeoX stack with its own token embedding and LM head.
#[derive(Module, Debug)]
pub(crate) struct NeoXTokenStack {
    pub(crate) embed_in: Embedding,
    pub(crate) stack: NeoXStack,
    embed_out: Linear,
}

/// A T5 stack. The token embedding and the LM head are one table.
#[derive(Module, Debug)]
pub(crate) struct T5TokenStack {
    pub(crate) shared: Embedding,
    pub(crate) stack: T5Stack,
}

/// The stack of a token decoder.
#[derive(Module, Debug)]
pub(crate) enum TokenStack {
    /// GPT-NeoX, prefix or summation.
    NeoX(NeoXTokenStack),
    /// T5, cross-attention.
    T5(T5TokenStack),
}

/// Decodes the tokens of a block from the context embeddings before it.
#[derive(Module, Debug)]
pub struct TokenDecoder {
    expansion_layer: BlockConv,
    pub(crate) tokens: TokenStack,
    #[module(skip)]
    pub(crate) strategy: Strategy,
    pub(crate) block_length: usize,
    width: usize,
    /// Vectors per block that the context embeddings are expanded to.
    pub(crate) vectors: usize,
    published_positions: bool,
}

impl TokenDecoder {
    pub(crate) fn new(config: &BlockTransformerConfig, init: &Init) -> Self {
        let d = config.block_decoder.hidden_size;
        let vocab = config.vocab_size;
        let here = init.at("tokens");
        let (tokens, strategy, width) = match &config.token_decoder {
            TokenDecoderConfig::NeoX(c) => {
                let (init, h, std) = (here.at("NeoX"), c.stack.hidden_size, NeoXStack::INIT_STD);
                let tokens = NeoXTokenStack {
                    embed_in: init.embedding("embed_in", vocab, h, std),
                    stack: NeoXStack::new(&c.stack, &init.at("stack")),
                    embed_out: init.linear("embed_out", h, vocab, false, std),
                };
                (TokenStack::NeoX(tokens), c.decoding_strategy, h)
            }
            TokenDecoderConfig::T5(c) => {
                let init = here.at("T5");
                let tokens = T5TokenStack {
                    shared: init.embedding("shared", vocab, c.stack.hidden_size, 1.0),
                    stack: T5Stack::new(&c.stack, &init.at("stack")),
                };
                (TokenStack::T5(tokens), c.decoding_strategy, c.stack.hidden_size)
            }
        };
        let expanded = width * config.expansion();
        let std = (d as f64).powf(-0.5);
        Self {
            expansion_layer: BlockConv::new(&init.at("expansion_layer"), d, expanded, 1, std),
            tokens,
            strategy,
            block_length: config.block_length,
            width,
            vectors: config.embeddings_per_block() * config.expansion(),
            published_positions: false,
        }
    }

    /// Returns the decoder with the rotary positions of the published generation code.
    ///
    /// During generation, that code counts the whole prefix as one position. With more than one
    /// prefix vector, its rotary angles therefore differ from those of training. This crate
    /// generates with the angles of training; this method exists to reproduce the published
    /// outputs.
    pub fn with_published_positions(mut self) -> Self {
        self.published_positions = true;
        self
    }

    /// Rotary angles of positions `start..start + time`.
    pub(crate) fn rotary(&self, tokens: &NeoXTokenStack, start: usize, time: usize) -> Rotary {
        let one_prefix = self.published_positions && self.strategy == Strategy::Prefix;
        let skipped = if one_prefix { self.vectors - 1 } else { 0 };
        let positions = (start..start + time).map(|i| i.saturating_sub(skipped)).collect();
        tokens.stack.rotary_at(positions)
    }

    /// Expands context embeddings: `[rows, e, d] -> [rows, e * r, h]`.
    pub(crate) fn expand(&self, contexts: Tensor<3>) -> Tensor<3> {
        let [rows, ..] = contexts.dims();
        let expanded = self.expansion_layer.forward(contexts); // [rows, e, r * h]
        expanded.reshape([rows, self.vectors, self.width])
    }

    /// Hidden states of every token of the blocks that follow `contexts`.
    ///
    /// # Shapes
    /// - `contexts`: `[rows, e, d]`
    /// - `ids`: `[rows, l]`, the tokens of those blocks
    /// - output: `[rows, l, h]`
    pub fn hidden(&self, contexts: Tensor<3>, ids: Tensor<2, Int>) -> Tensor<3> {
        let [rows, l] = ids.dims();
        let (expanded, device) = (self.expand(contexts), ids.device());
        // the last token of a block is never an input
        let shifted = || {
            let bos = Tensor::full([rows, 1], BOS, &device);
            Tensor::cat(vec![bos, ids.clone().narrow(1, 0, l - 1)], 1)
        };
        let start = Positions::Same(0);
        match &self.tokens {
            TokenStack::NeoX(tokens) => {
                let (inputs, first) = if self.strategy == Strategy::Prefix {
                    let inputs = match l {
                        1 => expanded,
                        _ => {
                            let known = tokens.embed_in.forward(ids.clone().narrow(1, 0, l - 1));
                            Tensor::cat(vec![expanded, known], 1)
                        }
                    };
                    (inputs, self.vectors - 1)
                } else {
                    (tokens.embed_in.forward(shifted()) + expanded, 0)
                };
                let [_, time, _] = inputs.dims();
                let mask = causal_by_block(&start, time, 1, None);
                let rotary = self.rotary(tokens, 0, time);
                let hidden = tokens.stack.forward(inputs, &mask, &rotary);
                hidden.narrow(1, first, l)
            }
            TokenStack::T5(tokens) => {
                let inputs = tokens.shared.forward(shifted());
                let states = tokens.stack.states(&expanded);
                scale_for_tied(tokens.stack.forward(inputs, &states, &start, None))
            }
        }
    }

    /// The LM head's matrix `[h, v]`.
    pub fn head(&self) -> Tensor<2> {
        match &self.tokens {
            TokenStack::NeoX(tokens) => tokens.embed_out.weight.val(),
            TokenStack::T5(tokens) => tokens.shared.weight.val().transpose(),
        }
    }

    /// Logits `[rows, time, v]` of hidden states `[rows, time, h]`.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        project(hidden, self.head(), None)
    }
}

/// Scales hidden states by `h^-0.5`, as published T5 models do before an LM head that is tied to
/// the embedding.
pub(crate) fn scale_for_tied(hidden: Tensor<3>) -> Tensor<3> {
    let [_, _, width] = hidden.dims();
    hidden * (width as f64).powf(-0.5)
}
