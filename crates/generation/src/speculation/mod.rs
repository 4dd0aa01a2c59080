//! Guesses of the next tokens, which one pass of the model verifies.
//!
//! A step starts a block of every sequence. The guesses for a block are inputs of the token decoder in its
//! first pass. If guesses go beyond the block, the block decoder runs the guessed blocks as well, and the
//! token decoder starts several blocks of the sequence. Tokens are chosen in order, as without guesses, and
//! the logits up to the first wrong guess are used. Further passes decode the rest of the block.
//!
//! Each token is chosen from the same bits of its logits and with the same random number as without
//! guesses, so the tokens are the same.

mod acceptance;
mod cost;
mod draft;
mod ngrams;
mod plan;
mod step;

use std::collections::HashMap;
use std::sync::Arc;

use acceptance::Acceptance;
use cost::Cost;
use draft::Draft;

pub use ngrams::NGrams;
pub(crate) use plan::{Planned, SpeculationSizes};

/// How many of the next tokens are guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speculate {
    /// None. A step decodes one token of every sequence.
    #[default]
    Off,
    /// As many as pay, by the rate of right guesses so far and the measured time of a pass. A step
    /// decodes at least one block of every sequence.
    Auto,
    /// Up to this many tokens per sequence and pass, whenever the last token occurred before; fewer when a pass
    /// would have too many rows.
    Tokens(usize),
}

/// Counts of an engine that guesses tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpeculationCounts {
    /// Tokens decoded, including those that ended a sequence.
    pub tokens: usize,
    /// Passes in which these tokens were chosen, counted once per sequence.
    pub passes: usize,
    /// Guessed tokens that were run.
    pub guessed: usize,
    /// Guessed tokens that were right.
    pub right: usize,
}

impl SpeculationCounts {
    /// Tokens per pass of a sequence; 1 without guesses.
    pub fn tokens_per_pass(&self) -> f64 {
        self.tokens as f64 / self.passes.max(1) as f64
    }

    /// The share of right ones among the guessed tokens; 0 without guesses.
    pub fn acceptance(&self) -> f64 {
        self.right as f64 / self.guessed.max(1) as f64
    }
}

/// The state of an engine that guesses tokens.
pub(crate) struct Speculation {
    /// The largest number of guessed tokens; `None` chooses it by cost.
    fixed: Option<usize>,
    sizes: SpeculationSizes,
    /// N-grams of a corpus.
    ngrams: Option<Arc<NGrams>>,
    /// By slot.
    sequences: HashMap<usize, Sequence>,
    all: Acceptance,
    /// The time of the block decoder, by positions of all rows.
    appends: Cost,
    /// The time of the token decoder, by positions of all rows.
    passes: Cost,
    counts: SpeculationCounts,
}

#[derive(Default)]
struct Sequence {
    draft: Draft,
    acceptance: Acceptance,
}

impl Speculation {
    /// Returns the state; `None` if nothing is guessed.
    pub(crate) fn new(speculate: Speculate, sizes: SpeculationSizes) -> Option<Self> {
        let fixed = match speculate {
            Speculate::Off | Speculate::Tokens(0) => return None,
            Speculate::Auto => None,
            Speculate::Tokens(most) => Some(most),
        };
        Some(Self {
            fixed,
            sizes,
            ngrams: None,
            sequences: HashMap::new(),
            all: Acceptance::default(),
            appends: Cost::default(),
            passes: Cost::default(),
            counts: SpeculationCounts::default(),
        })
    }

    /// Guesses from the n-grams of a corpus too.
    pub(crate) fn set_ngrams(&mut self, ngrams: Arc<NGrams>) {
        self.ngrams = Some(ngrams);
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> SpeculationCounts {
        self.counts
    }
}
