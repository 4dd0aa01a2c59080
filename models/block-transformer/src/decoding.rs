//! Decoding with KV caches: one step of the block decoder per block, then the token decoder inside
//! the block.

use block_transformer_family::{
    BlockDecoding, BlockRow, CacheRoom, PaddingMask, SpeculativeDecoding, Work,
};
use block_transformer_layers::{KvCache, Positions, StackCache};
use burn::tensor::{Device, Int, Tensor};

use crate::model::BlockTransformer;
use crate::token_block::{TokenBlock, TokenCache};

/// A model with its caches and the block in progress.
pub(crate) struct BlockDecodingState {
    model: BlockTransformer,
    /// Caches of the block decoder by slot, `e` positions per block.
    blocks: StackCache,
    /// Caches of the token decoder by row of the block in progress. Every block reuses them.
    tokens: TokenCache,
    in_progress: Option<TokenBlock>,
    device: Device,
    work: Work,
}

impl BlockDecodingState {
    pub(crate) fn new(mut model: BlockTransformer, room: CacheRoom, device: &Device) -> Self {
        let CacheRoom { slots, blocks, format } = room;
        let positions = blocks * model.config.embeddings_per_block();
        model.block_decoder = model.block_decoder.with_positions(positions);
        Self {
            blocks: model.block_decoder.new_cache([slots, positions], format.into(), device),
            tokens: model.token_decoder.new_cache(slots, format, device),
            in_progress: None,
            model,
            device: device.clone(),
            work: Work::default(),
        }
    }
}

impl BlockDecodingState {
    /// Runs blocks; returns the states of the last `keep` of each row, or of all.
    fn append_keeping(
        &mut self,
        ids: Tensor<3, Int>,
        is_token: &PaddingMask,
        at: &Positions,
        keep: Option<usize>,
    ) -> Tensor<3> {
        let ([rows, n, _], e) = (ids.dims(), self.model.config.embeddings_per_block());
        let keep = keep.map(|blocks| blocks * e);
        let finished = keep.map_or(rows * n * e, |keep| at.rows(rows) * keep);
        self.work.block.add(rows * n * e, finished);
        let embedded = self.model.embed(ids, is_token); // [rows, n * e, d]
        let (stack, at) = (&self.model.block_decoder, at.scaled(e));
        stack.append(embedded, &stack.places(&at, [rows, n * e], e), keep, &mut self.blocks)
    }

    /// Counts the positions of a pass that gives logits `[rows, time, v]` and returns the logits.
    fn counted(&mut self, logits: Tensor<3>, positions: usize) -> Tensor<3> {
        let [rows, time, _] = logits.dims();
        self.work.token.add(positions, rows * time);
        self.work.logits += rows * time;
        logits
    }
}

impl BlockDecoding for BlockDecodingState {
    fn append(&mut self, ids: Tensor<3, Int>, is_token: &PaddingMask, at: &Positions) -> Tensor<3> {
        self.append_keeping(ids, is_token, at, Some(1))
    }

    fn start(&mut self, states: Tensor<3>) -> Tensor<2> {
        self.start_guessed(states, None).squeeze_dim(1)
    }

    fn decode(&mut self, kept: &[usize], ids: Tensor<1, Int>) -> Tensor<2> {
        let block = self.in_progress.as_mut().expect("a block is in progress");
        block.keep(kept);
        let ids = ids.reshape([kept.len(), 1]);
        let logits = self.model.token_decoder.next(block, ids, &mut self.tokens);
        self.counted(logits, kept.len()).squeeze_dim(1)
    }

    fn speculative(&mut self) -> Option<&mut dyn SpeculativeDecoding> {
        self.model.token_decoder.continues_anywhere().then_some(self)
    }

    fn context_cache(&mut self) -> &mut [KvCache] {
        &mut self.blocks
    }

    fn appends_on_device(&self) -> bool {
        self.model.block_decoder.appends_on_device(&self.device)
    }

    fn work(&self) -> Work {
        self.work
    }

    fn set_work(&mut self, work: Work) {
        self.work = work;
    }
}

impl SpeculativeDecoding for BlockDecodingState {
    fn append_all(
        &mut self,
        ids: Tensor<3, Int>,
        is_token: &PaddingMask,
        at: &Positions,
    ) -> Tensor<3> {
        self.append_keeping(ids, is_token, at, None)
    }

    fn start_guessed(&mut self, states: Tensor<3>, guessed: Option<Tensor<2, Int>>) -> Tensor<3> {
        let ([rows, e, _], decoder) = (states.dims(), &self.model.token_decoder);
        self.work.expanded += rows * e;
        let guesses = guessed.as_ref().map_or(0, |guessed| guessed.dims()[1]);
        let positions = rows * (decoder.shape.first_positions() + guesses);
        let (block, logits) = decoder.start(states, guessed, &mut self.tokens);
        self.in_progress = Some(block);
        self.counted(logits, positions)
    }

    fn decode_guessed(&mut self, rows: &[BlockRow], ids: Tensor<2, Int>) -> Tensor<3> {
        let block = self.in_progress.as_mut().expect("a block is in progress");
        let kept: Vec<usize> = rows.iter().map(|row| row.row).collect();
        block.keep(&kept);
        let first = self.model.token_decoder.shape.first_positions();
        block.rewind(rows.iter().map(|row| first + row.place).collect());
        let [_, time] = ids.dims();
        let logits = self.model.token_decoder.next(block, ids, &mut self.tokens);
        self.counted(logits, rows.len() * time)
    }
}
