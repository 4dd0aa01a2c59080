//! Decoding a block token by token: the token decoder's caches, and the block in progress.

use std::collections::HashMap;

use block_transformer_family::{Conditioning, FloatFormat};
use block_transformer_layers::t5::T5States;
use block_transformer_layers::{
    Indices, Places, Positions, StackCache, embed, int_tensor, project,
};
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor};

use crate::embedder::BOS;
use crate::token_decoder::{TokenDecoder, TokenStack, scale_for_tied};

/// A block in progress.
#[derive(Clone, Debug)]
pub struct TokenBlock {
    /// Slot of each row in the cache.
    slots: Indices,
    /// Positions in the cache so far.
    written: usize,
    /// Vectors that are added to the token embeddings, `[rows, vectors, h]`; `None` without summation.
    added: Option<Tensor<3>>,
    /// Encoder states for cross-attention; empty without it.
    states: T5States,
}

impl TokenBlock {
    /// Keeps only `rows`.
    pub fn keep(&mut self, rows: &[usize]) {
        if rows.len() == self.slots.len() {
            return;
        }
        self.slots = rows.iter().map(|&row| self.slots[row]).collect();
        let select = |device: &Device| int_tensor(rows.iter().copied(), device);
        self.added = self.added.take().map(|added| {
            let rows = select(&added.device());
            added.select(0, rows)
        });
        for (key, value) in &mut self.states {
            let rows = select(&key.device());
            key.inplace(|key| key.select(0, rows.clone()));
            value.inplace(|value| value.select(0, rows));
        }
    }

    /// Slot and position of the next input of each row.
    fn at(&self) -> Positions {
        if self.slots.iter().enumerate().all(|(row, &slot)| row == slot) {
            return Positions::Same(self.written);
        }
        let starts = vec![self.written; self.slots.len()].into();
        Positions::Slots { slots: self.slots.clone(), starts }
    }
}

/// The caches of a token decoder. Every block reuses them.
#[derive(Clone, Debug)]
pub struct TokenCache {
    layers: StackCache,
    /// Places by position, for rows that occupy the first slots in order.
    places: HashMap<StepKey, Places>,
}

/// Positions written before a step, rows and new positions per row.
type StepKey = (usize, usize, usize);

impl TokenDecoder {
    /// Empty caches in `format` for blocks of up to `rows` sequences.
    pub fn new_cache(&self, rows: usize, format: FloatFormat, device: &Device) -> TokenCache {
        let shape = [rows, self.shape.cached_positions(self.block_length)];
        let layers = match &self.tokens {
            TokenStack::NeoX(tokens) => tokens.stack.new_cache(shape, format.into(), device),
            TokenStack::T5(tokens) => tokens.stack.new_cache(shape, format.into(), device),
        };
        TokenCache { layers, places: HashMap::new() }
    }

    /// Starts the blocks that follow `contexts` `[rows, e, d]`, and overwrites `cache`. Returns the
    /// blocks and the logits `[rows, v]` of their first tokens.
    pub fn start(&self, contexts: Tensor<3>, cache: &mut TokenCache) -> (TokenBlock, Tensor<2>) {
        let expanded = self.expand(contexts);
        let ([rows, ..], device) = (expanded.dims(), expanded.device());
        let mut block =
            TokenBlock { slots: (0..rows).collect(), written: 0, added: None, states: Vec::new() };
        match (self.shape.conditioning, &self.tokens) {
            (Conditioning::Prefix, _) => {
                let logits = self.step(&mut block, expanded, cache);
                return (block, logits);
            }
            (_, TokenStack::T5(tokens)) => block.states = tokens.stack.states(&expanded),
            _ => block.added = Some(expanded),
        }
        let bos = Tensor::full([rows], BOS, &device);
        let logits = self.next(&mut block, bos, cache);
        (block, logits)
    }

    /// Runs the chosen tokens `ids` `[rows]` of each block. Returns the logits `[rows, v]` of the next
    /// ones.
    pub fn next(
        &self,
        block: &mut TokenBlock,
        ids: Tensor<1, Int>,
        cache: &mut TokenCache,
    ) -> Tensor<2> {
        let [rows] = ids.dims();
        let embed = |table: &Embedding| embed(table, ids.reshape([rows, 1])); // [rows, 1, h]
        let inputs = match &self.tokens {
            TokenStack::NeoX(tokens) => embed(&tokens.embed_in),
            TokenStack::T5(tokens) => embed(&tokens.shared),
        };
        let inputs = match &block.added {
            Some(added) => inputs + added.clone().narrow(1, block.written, 1),
            None => inputs,
        };
        self.step(block, inputs, cache)
    }

    /// Runs `inputs` `[rows, time, h]`. Returns the logits `[rows, v]` after the last one.
    fn step(&self, block: &mut TokenBlock, inputs: Tensor<3>, cache: &mut TokenCache) -> Tensor<2> {
        let ([rows, time, _], at) = (inputs.dims(), block.at());
        let hidden = match &self.tokens {
            TokenStack::NeoX(tokens) => {
                let written = block.written;
                let new = |at| Places::new(at, [rows, time], 1, self.rotary(tokens, written, time));
                let places = match at {
                    Positions::Same(_) => {
                        let places = cache.places.entry((written, rows, time));
                        places.or_insert_with(|| new(at)).clone()
                    }
                    Positions::Slots { .. } => new(at),
                };
                tokens.stack.append(inputs, &places, 1, &mut cache.layers)
            }
            TokenStack::T5(tokens) => {
                let hidden =
                    tokens.stack.forward(inputs, &block.states, &at, Some(&mut cache.layers));
                scale_for_tied(hidden)
            }
        };
        block.written += time;
        let logits = project(hidden, self.head(), None); // [rows, 1, v]
        let [_, _, vocab] = logits.dims();
        logits.reshape([rows, vocab])
    }
}
