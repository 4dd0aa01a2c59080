//! Decoding without caches: a bigram model reads the last token only.

use block_transformer_family::{BlockDecoding, Family, PaddingMask, Work};
use block_transformer_layers::{KvCache, Positions, int_tensor, project};
use burn::tensor::{Int, Tensor};

use crate::model::Bigram;

impl BlockDecoding for Bigram {
    fn append(&mut self, ids: Tensor<3, Int>, _: &PaddingMask, at: &Positions) -> Tensor<3> {
        let [rows, n, _] = ids.dims();
        let last = at.last([rows, n]);
        let (count, device) = (last.len(), ids.device());
        let ids = ids.reshape([rows * n]).select(0, int_tensor(last, &device));
        self.states(ids.reshape([count, 1]))
    }

    fn start(&mut self, states: Tensor<3>) -> Tensor<2> {
        let [rows, _, width] = states.dims();
        project(states.reshape([rows, width]), self.head(), None)
    }

    fn decode(&mut self, _: &[usize], _: Tensor<1, Int>) -> Tensor<2> {
        unreachable!("a block of one token is complete after its first")
    }

    fn context_cache(&mut self) -> &mut [KvCache] {
        &mut []
    }

    fn work(&self) -> Work {
        Work::default()
    }
}
