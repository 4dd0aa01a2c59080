//! The family trait.

use block_transformer_family::{BlockDecoding, Family, PaddingMask, TokenBatch};
use block_transformer_layers::{Init, int_tensor};
use burn::tensor::{Device, Int, Tensor};

use crate::config::BigramConfig;
use crate::decoding::DecodingState;
use crate::model::Bigram;

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

    fn continuation_hidden(
        &self,
        ids: Tensor<3, Int>,
        _is_token: &PaddingMask,
        before: Vec<i64>,
        _written: Tensor<2, Int>,
    ) -> Tensor<3> {
        let ([rows, n, _], count) = (ids.dims(), before.len());
        let before = int_tensor(before, &ids.device());
        self.states(ids.reshape([rows * n]).select(0, before).reshape([count, 1]))
    }

    fn decoder(&self, _slots: usize, _blocks: usize, _: &Device) -> Box<dyn BlockDecoding + Send> {
        Box::new(DecodingState::new(self.clone()))
    }
}
