//! What has been computed, counted.

/// What an engine has computed since it was made.
///
/// With the sizes of a model this is its work in FLOPs; how much a token costs is in the crate's
/// README. A vanilla model is all token decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Positions run through the block decoder, those of prompts included.
    pub block: Positions,
    /// Context embeddings expanded for the token decoder.
    pub expanded: usize,
    /// Positions run through the token decoder.
    pub token: Positions,
    /// Rows of logits.
    pub logits: usize,
}

/// Positions run through a stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// All of them.
    pub run: usize,
    /// Those that came out of the last layer. Of the others it made keys and values only.
    pub finished: usize,
}

impl Positions {
    pub(crate) fn add(&mut self, run: usize, finished: usize) {
        self.run += run;
        self.finished += finished;
    }
}
