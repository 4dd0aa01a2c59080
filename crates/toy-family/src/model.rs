//! A token table and an LM head.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};

use crate::config::BigramConfig;

/// A language model that uses the embedding of the last token as its hidden state.
#[derive(Module, Debug)]
pub struct Bigram {
    pub(crate) table: Embedding,
    pub(crate) head: Linear,
    #[module(skip)]
    pub(crate) config: BigramConfig,
}

impl Bigram {
    /// Hidden states `[rows, time, width]` of `ids` `[rows, time]`.
    pub(crate) fn states(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.table.forward(ids)
    }
}
