//! Decoding with KV caches: one step of the block decoder per block, then the token decoder inside
//! the block.

use block_transformer_family::{BlockDecoding, CacheRoom, PaddingMask, Work};
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

impl BlockDecoding for BlockDecodingState {
    fn append(&mut self, ids: Tensor<3, Int>, is_token: &PaddingMask, at: &Positions) -> Tensor<3> {
        let ([rows, n, _], e) = (ids.dims(), self.model.config.embeddings_per_block());
        self.work.block.add(rows * n * e, rows * e);
        let embedded = self.model.embed(ids, is_token); // [rows, n * e, d]
        let (stack, at) = (&self.model.block_decoder, at.scaled(e));
        stack.append(embedded, &stack.places(&at, [rows, n * e], e), e, &mut self.blocks)
    }

    fn start(&mut self, states: Tensor<3>) -> Tensor<2> {
        let ([rows, e, _], decoder) = (states.dims(), &self.model.token_decoder);
        self.work.expanded += rows * e;
        self.work.token.add(rows * decoder.shape.first_positions(), rows);
        self.work.logits += rows;
        let (block, logits) = decoder.start(states, &mut self.tokens);
        self.in_progress = Some(block);
        logits
    }

    fn decode(&mut self, kept: &[usize], ids: Tensor<1, Int>) -> Tensor<2> {
        let block = self.in_progress.as_mut().expect("a block is in progress");
        block.keep(kept);
        self.work.token.add(kept.len(), kept.len());
        self.work.logits += kept.len();
        self.model.token_decoder.next(block, ids, &mut self.tokens)
    }

    fn fill_random(&mut self) {
        self.blocks.iter_mut().for_each(KvCache::fill_random);
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
