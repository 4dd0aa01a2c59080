//! Decoding with KV caches: each token is a block of its own.

use block_transformer_family::{
    BlockDecoding, BlockRow, CacheRoom, PaddingMask, SpeculativeDecoding, Work,
};
use block_transformer_layers::{KvCache, Positions, StackCache, embed};
use burn::tensor::{Device, Int, Tensor};

use crate::model::GptNeoX;

/// A model with its caches by slot, one position per token.
pub(crate) struct TokenDecodingState {
    model: GptNeoX,
    cache: StackCache,
    device: Device,
    work: Work,
}

impl TokenDecodingState {
    pub(crate) fn new(mut model: GptNeoX, room: CacheRoom, device: &Device) -> Self {
        let CacheRoom { slots, blocks, format } = room;
        model.stack = model.stack.with_positions(blocks);
        let cache = model.stack.new_cache([slots, blocks], format.into(), device);
        Self { cache, model, device: device.clone(), work: Work::default() }
    }
}

impl TokenDecodingState {
    /// Runs tokens `[rows, n, 1]`; returns the states of the last `keep` of each row, or of all.
    fn append_keeping(
        &mut self,
        ids: Tensor<3, Int>,
        at: &Positions,
        keep: Option<usize>,
    ) -> Tensor<3> {
        let ([rows, n, _], stack) = (ids.dims(), &self.model.stack);
        self.work.token.add(rows * n, keep.map_or(rows * n, |keep| at.rows(rows) * keep));
        let embedded = embed(&self.model.embed_in, ids.reshape([rows, n]));
        stack.append(embedded, &stack.places(at, [rows, n], 1), keep, &mut self.cache)
    }
}

impl BlockDecoding for TokenDecodingState {
    fn append(&mut self, ids: Tensor<3, Int>, _: &PaddingMask, at: &Positions) -> Tensor<3> {
        self.append_keeping(ids, at, Some(1))
    }

    fn start(&mut self, states: Tensor<3>) -> Tensor<2> {
        self.start_guessed(states, None).squeeze_dim(1)
    }

    fn decode(&mut self, _: &[usize], _: Tensor<1, Int>) -> Tensor<2> {
        unreachable!("a block of one token is complete after its first")
    }

    fn speculative(&mut self) -> Option<&mut dyn SpeculativeDecoding> {
        Some(self)
    }

    fn context_cache(&mut self) -> &mut [KvCache] {
        &mut self.cache
    }

    fn appends_on_device(&self) -> bool {
        self.model.stack.appends_on_device(&self.device)
    }

    fn work(&self) -> Work {
        self.work
    }

    fn set_work(&mut self, work: Work) {
        self.work = work;
    }
}

impl SpeculativeDecoding for TokenDecodingState {
    fn append_all(&mut self, ids: Tensor<3, Int>, _: &PaddingMask, at: &Positions) -> Tensor<3> {
        self.append_keeping(ids, at, None)
    }

    fn start_guessed(&mut self, states: Tensor<3>, _: Option<Tensor<2, Int>>) -> Tensor<3> {
        let [rows, ..] = states.dims();
        self.work.logits += rows;
        self.model.logits(states) // [rows, 1, v]
    }

    fn decode_guessed(&mut self, _: &[BlockRow], _: Tensor<2, Int>) -> Tensor<3> {
        unreachable!("a block of one token is complete after its first")
    }
}
