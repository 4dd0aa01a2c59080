//! Context embeddings -> the tokens of the next block, with attention inside the block only.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};
use zoo_layers::neox::{NeoXStack, StackCache};
use zoo_layers::t5::{T5Cache, T5Stack};
use zoo_layers::{BlockConv, Init, Positions, Rotary, causal_by_block, project};

use crate::{BlockTransformerConfig, Strategy, TokenDecoderConfig, embedder::BOS};

/// A GPT-NeoX stack with its own token embedding and LM head.
#[derive(Module, Debug)]
pub struct NeoXTokens {
    embed_in: Embedding,
    stack: NeoXStack,
    embed_out: Linear,
}

/// A T5 stack; one table embeds tokens and reads logits.
#[derive(Module, Debug)]
pub struct T5Tokens {
    shared: Embedding,
    stack: T5Stack,
}

/// The stack of a token decoder.
#[derive(Module, Debug)]
pub enum Tokens {
    /// GPT-NeoX, prefix or summation.
    NeoX(NeoXTokens),
    /// T5, cross-attention.
    T5(T5Tokens),
}

/// Writes the tokens of a block from the context embedding before it.
#[derive(Module, Debug)]
pub struct TokenDecoder {
    expansion_layer: BlockConv,
    tokens: Tokens,
    #[module(skip)]
    strategy: Strategy,
    block_length: usize,
    width: usize,
    published_positions: bool,
}

/// A block being written: the token decoder's cache and how far it has come. The NeoX caches are
/// reused from block to block.
#[derive(Clone, Debug)]
pub struct TokenState {
    cache: Cache,
    /// `[rows, vectors, h]`, the expanded context embeddings
    expanded: Tensor<3>,
    written: usize,
}

#[derive(Clone, Debug)]
enum Cache {
    NeoX(StackCache),
    T5(Box<T5Cache>),
}

impl TokenDecoder {
    pub(crate) fn new(config: &BlockTransformerConfig, init: &Init) -> Self {
        let d = config.block_decoder.hidden_size;
        let vocab = config.vocab_size;
        let here = init.at("tokens");
        let (tokens, strategy, width) = match &config.token_decoder {
            TokenDecoderConfig::NeoX(c) => {
                let (init, h, std) = (here.at("NeoX"), c.stack.hidden_size, NeoXStack::INIT_STD);
                let tokens = NeoXTokens {
                    embed_in: init.embedding("embed_in", vocab, h, std),
                    stack: NeoXStack::new(&c.stack, &init.at("stack")),
                    embed_out: init.linear("embed_out", h, vocab, false, std),
                };
                (Tokens::NeoX(tokens), c.decoding_strategy, h)
            }
            TokenDecoderConfig::T5(c) => {
                let init = here.at("T5");
                let tokens = T5Tokens {
                    shared: init.embedding("shared", vocab, c.stack.hidden_size, 1.0),
                    stack: T5Stack::new(&c.stack, &init.at("stack")),
                };
                (Tokens::T5(tokens), c.decoding_strategy, c.stack.hidden_size)
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
            published_positions: false,
        }
    }

    /// The decoder with the rotary positions of the published generation code.
    ///
    /// That code counts the whole prefix as one position when it generates (and only then), so with
    /// more than one prefix vector it rotates tokens by other angles than it trained them with.
    /// Generation here keeps the angles of training; this reproduces the published outputs.
    pub fn with_published_positions(mut self) -> Self {
        self.published_positions = true;
        self
    }

    /// Angles of positions `start..start + time` behind `vectors` expanded embeddings.
    fn rotary(&self, tokens: &NeoXTokens, start: usize, time: usize, vectors: usize) -> Rotary {
        let one_prefix = self.published_positions && self.strategy == Strategy::Prefix;
        let skipped = if one_prefix { vectors - 1 } else { 0 };
        let positions = (start..start + time).map(|i| i.saturating_sub(skipped)).collect();
        tokens.stack.rotary(positions)
    }

    /// `[rows, e, d] -> [rows, e * r, h]`
    fn expand(&self, contexts: Tensor<3>) -> Tensor<3> {
        let [rows, e, _] = contexts.dims();
        let expanded = self.expansion_layer.forward(contexts); // [rows, e, r * h]
        let [_, _, wide] = expanded.dims();
        expanded.reshape([rows, e * wide / self.width, self.width])
    }

    /// What the LM head reads the logits of every token from, for the blocks that follow
    /// `contexts`.
    ///
    /// # Shapes
    /// - `contexts`: `[rows, e, d]`
    /// - `ids`: `[rows, l]`, the blocks themselves
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
            Tokens::NeoX(tokens) => {
                let [_, vectors, _] = expanded.dims();
                let (inputs, first) = if self.strategy == Strategy::Prefix {
                    let inputs = match l {
                        1 => expanded,
                        _ => {
                            let known = tokens.embed_in.forward(ids.clone().narrow(1, 0, l - 1));
                            Tensor::cat(vec![expanded, known], 1)
                        }
                    };
                    (inputs, vectors - 1)
                } else {
                    (tokens.embed_in.forward(shifted()) + expanded, 0)
                };
                let [_, time, _] = inputs.dims();
                let mask = causal_by_block(&start, time, 1, None);
                let rotary = self.rotary(tokens, 0, time, vectors);
                let hidden = tokens.stack.forward_rotated(inputs, &mask, &rotary, &start, None);
                hidden.narrow(1, first, l)
            }
            Tokens::T5(tokens) => {
                let mask = causal_by_block(&start, l, 1, None);
                let inputs = tokens.shared.forward(shifted());
                scale_for_tied(tokens.stack.forward(inputs, &expanded, &mask, 0, None))
            }
        }
    }

    /// The LM head's matrix `[h, v]`.
    pub fn head(&self) -> Tensor<2> {
        match &self.tokens {
            Tokens::NeoX(tokens) => tokens.embed_out.weight.val(),
            Tokens::T5(tokens) => tokens.shared.weight.val().transpose(),
        }
    }

    /// Logits `[rows, time, v]` of hidden states `[rows, time, h]`.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        project(hidden, self.head(), None)
    }

    /// Starts the block that follows `contexts` `[rows, e, d]`: its state, and the logits
    /// `[rows, v]` of its first token. A `state` of as many rows lends its caches.
    pub fn start(&self, contexts: Tensor<3>, state: Option<TokenState>) -> (TokenState, Tensor<2>) {
        let expanded = self.expand(contexts);
        let [rows, vectors, _] = expanded.dims();
        let device = expanded.device();
        let cache = match &self.tokens {
            Tokens::NeoX(tokens) => match state.map(|state| state.cache) {
                Some(Cache::NeoX(cache)) => Cache::NeoX(cache),
                _ => {
                    let prefix = if self.strategy == Strategy::Prefix { vectors } else { 1 };
                    let capacity = prefix + self.block_length - 1;
                    Cache::NeoX(tokens.stack.new_cache(rows, capacity, &device))
                }
            },
            Tokens::T5(tokens) => {
                Cache::T5(Box::new(tokens.stack.new_cache(expanded.clone(), self.block_length)))
            }
        };
        let mut state = TokenState { cache, expanded, written: 0 };
        let logits = match self.strategy {
            Strategy::Prefix => self.step(&mut state, None),
            _ => self.step(&mut state, Some(Tensor::full([rows], BOS, &device))),
        };
        (state, logits)
    }

    /// Takes the block's next token `[rows]` and returns the logits `[rows, v]` of the one after.
    pub fn next(&self, state: &mut TokenState, ids: Tensor<1, Int>) -> Tensor<2> {
        self.step(state, Some(ids))
    }

    /// Runs the prefix (`ids` none) or one token.
    fn step(&self, state: &mut TokenState, ids: Option<Tensor<1, Int>>) -> Tensor<2> {
        let embed = |table: &Embedding, ids: Tensor<1, Int>| {
            let [rows] = ids.dims();
            table.forward(ids.reshape([rows, 1])) // [rows, 1, h]
        };
        let hidden = match (&self.tokens, &mut state.cache) {
            (Tokens::NeoX(tokens), Cache::NeoX(cache)) => {
                let prefix = self.strategy == Strategy::Prefix;
                let inputs = match ids {
                    None => state.expanded.clone(),
                    Some(ids) if prefix => embed(&tokens.embed_in, ids),
                    Some(ids) => {
                        let context = state.expanded.clone().narrow(1, state.written, 1);
                        embed(&tokens.embed_in, ids) + context
                    }
                };
                let [_, time, _] = inputs.dims();
                let at = Positions::Same(state.written);
                let mask = causal_by_block(&at, time, 1, None);
                let [_, vectors, _] = state.expanded.dims();
                let rotary = self.rotary(tokens, state.written, time, vectors);
                let hidden = tokens.stack.forward_rotated(inputs, &mask, &rotary, &at, Some(cache));
                state.written += time;
                hidden.narrow(1, time - 1, 1)
            }
            (Tokens::T5(tokens), Cache::T5(cache)) => {
                let inputs = match ids {
                    Some(ids) => embed(&tokens.shared, ids),
                    None => state.expanded.clone().narrow(1, 0, 1),
                };
                let past = state.written;
                let mask = causal_by_block(&Positions::Same(past), 1, 1, None);
                let hidden =
                    tokens.stack.forward(inputs, &state.expanded, &mask, past, Some(cache));
                state.written += 1;
                scale_for_tied(hidden)
            }
            _ => unreachable!("a state is made by the decoder that runs it"),
        };
        let logits = self.logits(hidden);
        let [rows, _, vocab] = logits.dims();
        logits.reshape([rows, vocab])
    }
}

/// A head tied to the embedding needs hidden states scaled by `h^-0.5`, as in the published T5.
fn scale_for_tied(hidden: Tensor<3>) -> Tensor<3> {
    let [_, _, width] = hidden.dims();
    hidden * (width as f64).powf(-0.5)
}
