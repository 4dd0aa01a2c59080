//! A token table and an LM head.

use block_transformer_family::{BlockDecoding, CacheRoom, Continuations, Family, TokenBatch};
use block_transformer_layers::{Init, int_tensor};
use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};

use crate::config::BigramConfig;

/// A language model that uses the embedding of the last token as its hidden state.
#[derive(Module, Debug)]
pub struct Bigram {
    table: Embedding,
    head: Linear,
    #[module(skip)]
    config: BigramConfig,
}

impl Bigram {
    /// Hidden states `[rows, time, width]` of `ids` `[rows, time]`.
    pub(crate) fn states(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.table.forward(ids)
    }
}

impl Family for Bigram {
    type Config = BigramConfig;

    fn init(config: &BigramConfig, seed: u64, device: &Device) -> Self {
        let (init, &BigramConfig { vocab_size, width }) = (Init::new(seed, device), config);
        Self {
            table: init.embedding("table", vocab_size, width, 1.0),
            head: init.linear("head", width, vocab_size, false, 0.1),
            config: config.clone(),
        }
    }

    fn config(&self) -> BigramConfig {
        self.config.clone()
    }

    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        let [rows, time] = batch.ids.dims();
        let states = self.states(batch.ids.clone().narrow(1, 0, time - 1));
        states.reshape([rows * (time - 1), self.config.width])
    }

    fn head(&self) -> Tensor<2> {
        self.head.weight.val()
    }

    fn continuation_hidden(&self, Continuations { ids, before, .. }: Continuations) -> Tensor<3> {
        let ([rows, n, _], count) = (ids.dims(), before.len());
        let before = int_tensor(before, &ids.device());
        self.states(ids.reshape([rows * n]).select(0, before).reshape([count, 1]))
    }

    fn decoder(&self, _: CacheRoom, _: &Device) -> Box<dyn BlockDecoding> {
        Box::new(self.clone())
    }
}
