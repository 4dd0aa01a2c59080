//! Writing a block token by token: the token decoder's caches, and the block in progress.

use block_transformer_layers::neox::StackCache;
use block_transformer_layers::t5::T5States;
use block_transformer_layers::{KvCache, Positions, int_tensor};
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor};

use crate::embedder::BOS;
use crate::token_decoder::{Tokens, scale_for_tied};
use crate::{Strategy, TokenDecoder};

/// The caches of the token decoder, one slot for each row of a block in progress, used anew for
/// every block.
#[derive(Clone, Debug)]
pub enum TokenCache {
    /// Of a GPT-NeoX stack.
    NeoX(StackCache),
    /// Of a T5 stack.
    T5(Vec<KvCache>),
}

/// A block that is being written.
#[derive(Clone, Debug)]
pub struct TokenBlock {
    /// Where each row lives in the cache.
    slots: Vec<usize>,
    /// Positions in the cache.
    written: usize,
    /// `[rows, vectors, h]`, where every token is given one of them.
    added: Option<Tensor<3>>,
    /// What every token attends to, where it does.
    states: T5States,
}

impl TokenBlock {
    /// Goes on with these rows only.
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

    /// Where the next position of each row goes.
    fn at(&self) -> Positions {
        if self.slots.iter().enumerate().all(|(row, &slot)| row == slot) {
            return Positions::Same(self.written);
        }
        Positions::Slots { slots: self.slots.clone(), starts: vec![self.written; self.slots.len()] }
    }
}

impl TokenDecoder {
    /// Tokens a block (`l`).
    pub fn block_length(&self) -> usize {
        self.block_length
    }

    /// Positions run before the first token is known: the prefix, or BOS.
    pub fn first_positions(&self) -> usize {
        if self.strategy == Strategy::Prefix { self.vectors } else { 1 }
    }

    /// Empty caches for blocks of up to `rows` sequences.
    pub fn new_cache(&self, rows: usize, device: &Device) -> TokenCache {
        // the last token is never an input
        let capacity = self.first_positions() + self.block_length - 1;
        match &self.tokens {
            Tokens::NeoX(tokens) => {
                TokenCache::NeoX(tokens.stack.new_cache(rows, capacity, device))
            }
            Tokens::T5(tokens) => TokenCache::T5(tokens.stack.new_cache(rows, capacity, device)),
        }
    }

    /// Starts the blocks that follow `contexts` `[rows, e, d]`, over whatever `cache` holds: the
    /// blocks, and the logits `[rows, v]` of their first tokens.
    pub fn start(&self, contexts: Tensor<3>, cache: &mut TokenCache) -> (TokenBlock, Tensor<2>) {
        let expanded = self.expand(contexts);
        let ([rows, ..], device) = (expanded.dims(), expanded.device());
        let mut block =
            TokenBlock { slots: (0..rows).collect(), written: 0, added: None, states: Vec::new() };
        match (self.strategy, &self.tokens) {
            (Strategy::Prefix, _) => {
                let logits = self.step(&mut block, expanded, cache);
                return (block, logits);
            }
            (_, Tokens::T5(tokens)) => block.states = tokens.stack.states(&expanded),
            _ => block.added = Some(expanded),
        }
        let bos = Tensor::full([rows], BOS, &device);
        let logits = self.next(&mut block, bos, cache);
        (block, logits)
    }

    /// Takes the next token `[rows]` of each block, and returns the logits `[rows, v]` of the one
    /// after.
    pub fn next(
        &self,
        block: &mut TokenBlock,
        ids: Tensor<1, Int>,
        cache: &mut TokenCache,
    ) -> Tensor<2> {
        let [rows] = ids.dims();
        let embed = |table: &Embedding| table.forward(ids.reshape([rows, 1])); // [rows, 1, h]
        let inputs = match &self.tokens {
            Tokens::NeoX(tokens) => embed(&tokens.embed_in),
            Tokens::T5(tokens) => embed(&tokens.shared),
        };
        let inputs = match &block.added {
            Some(added) => inputs + added.clone().narrow(1, block.written, 1),
            None => inputs,
        };
        self.step(block, inputs, cache)
    }

    /// Runs `inputs` `[rows, time, h]`: the logits `[rows, v]` after them.
    fn step(&self, block: &mut TokenBlock, inputs: Tensor<3>, cache: &mut TokenCache) -> Tensor<2> {
        let ([rows, time, _], at) = (inputs.dims(), block.at());
        let hidden = match (&self.tokens, cache) {
            (Tokens::NeoX(tokens), TokenCache::NeoX(cache)) => {
                let rotary = self.rotary(tokens, block.written, time);
                tokens.stack.append(inputs, &rotary, &at, 1, 1, cache)
            }
            (Tokens::T5(tokens), TokenCache::T5(cache)) => {
                let hidden = tokens.stack.forward(inputs, &block.states, &at, Some(cache));
                scale_for_tied(hidden)
            }
            _ => unreachable!("a cache is made by the decoder that uses it"),
        };
        block.written += time;
        let logits = self.logits(hidden); // [rows, 1, v]
        let [_, _, vocab] = logits.dims();
        logits.reshape([rows, vocab])
    }
}
