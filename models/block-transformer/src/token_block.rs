//! Decoding a block token by token: the token decoder's caches, and the block in progress.

use std::collections::HashMap;

use block_transformer_family::{CacheFormat, Conditioning};
use block_transformer_layers::t5::T5States;
use block_transformer_layers::{
    Indices, Places, Positions, StackCache, embed, int_tensor, project,
};
use burn::tensor::{Device, Int, Tensor};

use crate::embedder::BOS;
use crate::token_decoder::{TokenDecoder, TokenStack, scale_for_tied};

/// A block in progress.
#[derive(Clone, Debug)]
pub struct TokenBlock {
    /// Slot of each row in the cache.
    slots: Indices,
    /// Positions of each row in the cache so far.
    written: Vec<usize>,
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
        self.written = rows.iter().map(|&row| self.written[row]).collect();
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

    /// Continues each row after the first `written` of its positions; later ones are overwritten.
    pub(crate) fn rewind(&mut self, written: Vec<usize>) {
        self.written = written;
    }

    /// Slot and position of the next input of each row.
    fn at(&self) -> Positions {
        let (first, mut slots) = (self.written[0], self.slots.iter().enumerate());
        let same = self.written.iter().all(|&written| written == first);
        if same && slots.all(|(row, &slot)| row == slot) {
            return Positions::Same(first);
        }
        Positions::Slots { slots: self.slots.clone(), starts: self.written.clone().into() }
    }

    /// The vectors that are added to the next `time` inputs, `[rows, time, h]`.
    fn added(&self, time: usize) -> Option<Tensor<3>> {
        let added = self.added.clone()?;
        let ([rows, vectors, width], first) = (added.dims(), self.written[0]);
        if self.written.iter().all(|&written| written == first) {
            return Some(added.narrow(1, first, time));
        }
        let starts = self.written.iter().enumerate().map(|(row, start)| row * vectors + start);
        let places = int_tensor(starts.flat_map(|start| start..start + time), &added.device());
        let added = added.reshape([rows * vectors, width]).select(0, places);
        Some(added.reshape([rows, time, width]))
    }
}

/// The caches of a token decoder. Every block reuses them.
#[derive(Clone, Debug)]
pub struct TokenCache {
    layers: StackCache,
    rows: usize,
    format: CacheFormat,
    /// Places by position, for rows that occupy the first slots in order.
    places: HashMap<StepKey, Places>,
}

/// The largest number of places that a cache keeps.
const MOST_PLACES: usize = 64;

/// Positions written before a step, rows and new positions per row.
type StepKey = (usize, usize, usize);

impl TokenDecoder {
    /// Empty caches in `format` for blocks of up to `rows` sequences. They grow when a block has more
    /// rows.
    pub fn new_cache(&self, rows: usize, format: CacheFormat, device: &Device) -> TokenCache {
        let shape = [rows, self.shape.cached_positions(self.block_length)];
        let layers = match &self.tokens {
            TokenStack::NeoX(tokens) => tokens.stack.new_cache(shape, format.into(), device),
            TokenStack::T5(tokens) => {
                // burn's operations read these caches
                tokens.stack.new_cache(shape, format.values().into(), device)
            }
        };
        TokenCache { layers, rows, format, places: HashMap::new() }
    }

    /// Whether the rows of a block may be at different places. A T5 stack has one position bias for all
    /// rows.
    pub(crate) fn continues_anywhere(&self) -> bool {
        matches!(self.tokens, TokenStack::NeoX(_))
    }

    /// Starts the blocks that follow `contexts` `[rows, e, d]`, and overwrites `cache`. Returns the
    /// blocks and the logits `[rows, 1 + g, v]` of their first tokens, of which `guessed` `[rows, g]`
    /// are inputs.
    pub fn start(
        &self,
        contexts: Tensor<3>,
        guessed: Option<Tensor<2, Int>>,
        cache: &mut TokenCache,
    ) -> (TokenBlock, Tensor<3>) {
        let expanded = self.expand(contexts);
        let ([rows, ..], device) = (expanded.dims(), expanded.device());
        if rows > cache.rows {
            // the memory of the old cache goes first
            cache.layers.clear();
            *cache = self.new_cache(rows, cache.format, &device);
        }
        let mut block = TokenBlock {
            slots: (0..rows).collect(),
            written: vec![0; rows],
            added: None,
            states: Vec::new(),
        };
        match (self.shape.conditioning, &self.tokens) {
            (Conditioning::Prefix, _) => {
                let (inputs, keep) = match guessed {
                    Some(ids) => {
                        let [_, guesses] = ids.dims();
                        (Tensor::cat(vec![expanded, self.embed(ids)], 1), 1 + guesses)
                    }
                    None => (expanded, 1),
                };
                let logits = self.step(&mut block, inputs, keep, cache);
                return (block, logits);
            }
            (_, TokenStack::T5(tokens)) => block.states = tokens.stack.states(&expanded),
            _ => block.added = Some(expanded),
        }
        let bos = Tensor::full([rows, 1], BOS, &device);
        let ids = match guessed {
            Some(guessed) => Tensor::cat(vec![bos, guessed], 1),
            None => bos,
        };
        let logits = self.next(&mut block, ids, cache);
        (block, logits)
    }

    /// Runs the tokens `ids` `[rows, time]` of each block. Returns the logits `[rows, time, v]` of the
    /// token after each of them.
    pub fn next(
        &self,
        block: &mut TokenBlock,
        ids: Tensor<2, Int>,
        cache: &mut TokenCache,
    ) -> Tensor<3> {
        let [_, time] = ids.dims();
        let inputs = match block.added(time) {
            Some(added) => self.embed(ids) + added,
            None => self.embed(ids),
        };
        self.step(block, inputs, time, cache)
    }

    /// The embeddings `[rows, time, h]` of tokens `[rows, time]`.
    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        match &self.tokens {
            TokenStack::NeoX(tokens) => embed(&tokens.embed_in, ids),
            TokenStack::T5(tokens) => embed(&tokens.shared, ids),
        }
    }

    /// Runs `inputs` `[rows, time, h]`. Returns the logits `[rows, keep, v]` after the last `keep` of each
    /// row.
    fn step(
        &self,
        block: &mut TokenBlock,
        inputs: Tensor<3>,
        keep: usize,
        cache: &mut TokenCache,
    ) -> Tensor<3> {
        let ([rows, time, _], at) = (inputs.dims(), block.at());
        let hidden = match &self.tokens {
            TokenStack::NeoX(tokens) => {
                let rotary = |at: &Positions, time| self.rotary(tokens, &at.starts(), time);
                let new = |at: Positions| Places::new(at, [rows, time], 1, &rotary);
                let places = match at {
                    Positions::Same(written) => {
                        // guesses have many numbers of rows
                        if cache.places.len() > MOST_PLACES {
                            cache.places.clear();
                        }
                        let places = cache.places.entry((written, rows, time));
                        places.or_insert_with(|| new(at)).clone()
                    }
                    at => new(at),
                };
                tokens.stack.append(inputs, &places, Some(keep), &mut cache.layers)
            }
            TokenStack::T5(tokens) => {
                let hidden =
                    tokens.stack.forward(inputs, &block.states, &at, Some(&mut cache.layers));
                scale_for_tied(hidden)
            }
        };
        block.written.iter_mut().for_each(|written| *written += time);
        project(hidden, self.head(), None) // [rows, keep, v]
    }
}
