//! The token decoder: from context embeddings to the tokens of the next block.

use block_transformer_family::{Conditioning, FamilyConfig, TokenDecoderShape};
use block_transformer_layers::neox::NeoXStack;
use block_transformer_layers::t5::T5Stack;
use block_transformer_layers::{BlockConv, Init, Positions, Rotary, causal_by_block, embed};
use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};

use crate::config::{BlockTransformerConfig, TokenDecoderConfig};
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
    pub(crate) shape: TokenDecoderShape,
    pub(crate) block_length: usize,
    published_positions: bool,
}

impl TokenDecoder {
    pub(crate) fn new(config: &BlockTransformerConfig, init: &Init) -> Self {
        let (d, vocab) = (config.block_decoder.hidden_size, config.vocab_size);
        let (here, h) = (init.at("tokens"), config.token_decoder.hidden_size());
        let tokens = match &config.token_decoder {
            TokenDecoderConfig::NeoX(c) => {
                let (init, std) = (here.at("NeoX"), NeoXStack::INIT_STD);
                let tokens = NeoXTokenStack {
                    embed_in: init.embedding("embed_in", vocab, h, std),
                    stack: NeoXStack::new(&c.stack, &init.at("stack")),
                    embed_out: init.linear("embed_out", h, vocab, false, std),
                };
                TokenStack::NeoX(tokens)
            }
            TokenDecoderConfig::T5(c) => {
                let init = here.at("T5");
                let tokens = T5TokenStack {
                    shared: init.embedding("shared", vocab, h, 1.0),
                    stack: T5Stack::new(&c.stack, &init.at("stack")),
                };
                TokenStack::T5(tokens)
            }
        };
        let (expanded, std) = (h * config.expansion(), (d as f64).powf(-0.5));
        Self {
            expansion_layer: BlockConv::new(&init.at("expansion_layer"), d, expanded, 1, std),
            tokens,
            shape: config.stacks().token.expect("a block needs a token decoder"),
            block_length: config.block_length,
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

    /// Rotary angles of `time` positions from each of `starts` on: one start for all rows, or one per row.
    pub(crate) fn rotary(&self, tokens: &NeoXTokenStack, starts: &[usize], time: usize) -> Rotary {
        let skipped = if self.published_positions { self.shape.first_positions() - 1 } else { 0 };
        let positions = starts.iter().flat_map(|&start| start..start + time);
        let positions = positions.map(|i| i.saturating_sub(skipped)).collect();
        tokens.stack.rotary_at(positions, starts.len())
    }

    /// Expands context embeddings: `[rows, e, d] -> [rows, e * r, h]`.
    pub(crate) fn expand(&self, contexts: Tensor<3>) -> Tensor<3> {
        let [rows, ..] = contexts.dims();
        let expanded = self.expansion_layer.forward(contexts); // [rows, e, r * h]
        expanded.reshape([rows, self.shape.vectors, self.shape.stack.width])
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
                let inputs = if self.shape.conditioning != Conditioning::Prefix {
                    embed(&tokens.embed_in, shifted()) + expanded
                } else if l == 1 {
                    expanded
                } else {
                    let known = embed(&tokens.embed_in, ids.clone().narrow(1, 0, l - 1));
                    Tensor::cat(vec![expanded, known], 1)
                };
                let [_, time, _] = inputs.dims();
                let mask = causal_by_block(&start, time, 1, None);
                let rotary = self.rotary(tokens, &[0], time);
                tokens.stack.forward_last(inputs, &mask, &rotary, Some(l))
            }
            TokenStack::T5(tokens) => {
                let inputs = embed(&tokens.shared, shifted());
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
}

/// Scales hidden states by `h^-0.5`, as published T5 models do before an LM head that is tied to
/// the embedding.
pub(crate) fn scale_for_tied(hidden: Tensor<3>) -> Tensor<3> {
    let [_, _, width] = hidden.dims();
    hidden * (width as f64).powf(-0.5)
}
