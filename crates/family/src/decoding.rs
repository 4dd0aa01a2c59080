//! Decoding block by block: a model with its KV caches.

use block_transformer_layers::{KvCache, Positions};
use burn::tensor::{Int, Tensor};

use crate::batch::PaddingMask;
use crate::precision::CacheFormat;
use crate::speculative::SpeculativeDecoding;

/// A model that decodes blocks of several sequences in lockstep, with its KV caches and the block in
/// progress.
///
/// Every sequence has a slot of the cache. A caller first appends the blocks of a prompt, then starts
/// a block from the states after them, then decodes the rest of the block token by token, and
/// appends the finished block.
pub trait BlockDecoding: Send {
    /// Runs new blocks and adds them to the cache. The blocks are a chunk of a prompt, or blocks
    /// that were finished in decoding.
    ///
    /// # Shapes
    /// - `ids`: `[rows, n, block_length]`
    /// - `is_token`: `[rows, n * block_length]`; padding is allowed at the start of a row's first
    ///   block only
    /// - `at`: the slot and the first new block of each row, counted in blocks. For rows of different lengths
    ///   ([`Positions::Ragged`]), `ids` is `[1, all blocks, block_length]`
    /// - output: the states `[rows, k, width]` after each row's last block
    fn append(&mut self, ids: Tensor<3, Int>, is_token: &PaddingMask, at: &Positions) -> Tensor<3>;

    /// Starts the next block of each row from `states` `[rows, k, width]`; returns the logits
    /// `[rows, vocab]` of its first token. A block that is still in progress is discarded.
    fn start(&mut self, states: Tensor<3>) -> Tensor<2>;

    /// Continues the blocks in progress. `kept` are the rows of the last call that go on, and `ids`
    /// `[kept]` the tokens that were chosen for them. Returns the logits `[kept, vocab]` of their
    /// next tokens. The function is not called if the block length is 1.
    ///
    /// # Panics
    /// When no block is in progress or the block is complete.
    fn decode(&mut self, kept: &[usize], ids: Tensor<1, Int>) -> Tensor<2>;

    /// The caches of the stack that attends over the whole sequence, one for each layer. A block has as many positions
    /// as [`append`](Self::append) returns states. Blocks can be copied from slot to slot.
    fn context_cache(&mut self) -> &mut [KvCache];

    /// Whether [`append`](Self::append) accepts [bounded](block_transformer_layers::Indices::bounded)
    /// positions of one block per row.
    fn appends_on_device(&self) -> bool {
        false
    }

    /// Returns the decoding with guessed tokens; `None` if the model does not support it. Its logits have
    /// the same bits as those without guesses wherever products and attention do not depend on the
    /// number of rows.
    fn speculative(&mut self) -> Option<&mut dyn SpeculativeDecoding> {
        None
    }

    /// Returns counts of the work done since the caches were created.
    fn work(&self) -> Work;

    /// Corrects the counts. A replayed graph does work that the functions above do not see.
    fn set_work(&mut self, _work: Work) {}
}

/// The room of the KV caches of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRoom {
    /// Sequences.
    pub slots: usize,
    /// Blocks per sequence.
    pub blocks: usize,
    /// The format of keys and values.
    pub format: CacheFormat,
}

/// Counts of the work that a decoder has done.
///
/// Together with the sizes of the model they give the work in FLOPs. A vanilla model counts as a
/// token decoder only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Positions run through the block decoder, including those of prompts.
    pub block: PositionCounts,
    /// Context embeddings expanded for the token decoder.
    pub expanded: usize,
    /// Positions run through the token decoder.
    pub token: PositionCounts,
    /// Rows of logits.
    pub logits: usize,
}

impl Work {
    /// The work since `before` in a step of `rows` rows, divided by `rows`.
    pub fn per_row(self, before: Self, rows: usize) -> Self {
        self.with(before, |now, before| (now - before) / rows)
    }

    /// This work and `rows` times the work `row`.
    pub fn plus(self, row: Self, rows: usize) -> Self {
        self.with(row, |sum, row| sum + row * rows)
    }

    fn with(self, other: Self, f: impl Fn(usize, usize) -> usize) -> Self {
        let counts = |a: PositionCounts, b: PositionCounts| PositionCounts {
            run: f(a.run, b.run),
            finished: f(a.finished, b.finished),
        };
        Self {
            block: counts(self.block, other.block),
            expanded: f(self.expanded, other.expanded),
            token: counts(self.token, other.token),
            logits: f(self.logits, other.logits),
        }
    }
}

/// Counts of positions run through a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionCounts {
    /// All positions.
    pub run: usize,
    /// Positions for which the last layer computed its output. For all other positions it computed
    /// keys and values only.
    pub finished: usize,
}

impl PositionCounts {
    /// Adds `run` positions, of which `finished` have an output of the last layer.
    pub fn add(&mut self, run: usize, finished: usize) {
        self.run += run;
        self.finished += finished;
    }
}
