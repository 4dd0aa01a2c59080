//! One step of the block decoder a block, then the token decoder inside it.

use block_transformer_layers::{KvCache, Positions, int_tensor};
use block_transformer_zoo::block::{BlockCache, BlockTransformer, TokenBlock, TokenCache};
use burn::tensor::{Device, Tensor};

use crate::Work;
use crate::decoder::{Arrival, Decoder, Written};
use crate::prompts::{Group, in_slot_order};

pub(crate) struct BlockDecoder {
    model: BlockTransformer,
    /// By slot.
    blocks: BlockCache,
    /// By row of the block in progress.
    tokens: TokenCache,
    in_progress: Option<TokenBlock>,
    device: Device,
    work: Work,
}

impl BlockDecoder {
    pub fn new(model: BlockTransformer, slots: usize, blocks: usize, device: &Device) -> Self {
        Self {
            blocks: model.new_cache(slots, blocks, device),
            tokens: model.token_decoder().new_cache(slots, device),
            in_progress: None,
            model,
            device: device.clone(),
            work: Work::default(),
        }
    }

    /// Context embeddings `[rows, e, d]` after the last block of each prompt.
    fn read(&mut self, prompts: &Group) -> Tensor<3> {
        let e = self.model.embeddings_per_block();
        let mut last = None;
        for chunk in prompts.chunks(e, &self.device) {
            let [rows, n, _] = chunk.ids.dims();
            let embedded = self.model.embed(chunk.ids, chunk.real);
            last = Some(self.model.contexts_cached(embedded, &chunk.at, 1, &mut self.blocks));
            self.work.block.add(rows * n * e, rows * e);
        }
        last.expect("a prompt has a block")
    }

    /// Context embeddings `[rows, e, d]` after the blocks just written.
    fn extend(&mut self, written: &[Written<'_>]) -> Tensor<3> {
        let (rows, l) = (written.len(), self.block_length());
        let ids: Vec<u32> = written.iter().flat_map(|block| block.ids).copied().collect();
        let ids = int_tensor(ids, &self.device).reshape([rows, 1, l]);
        let real = ids.ones_like().bool();
        let at = Positions::Slots {
            slots: written.iter().map(|block| block.slot).collect(),
            starts: written.iter().map(|block| block.after).collect(),
        };
        let positions = rows * self.model.embeddings_per_block();
        self.work.block.add(positions, positions);
        let embedded = self.model.embed(ids, real);
        self.model.contexts_cached(embedded, &at, 1, &mut self.blocks)
    }
}

impl Decoder for BlockDecoder {
    fn block_length(&self) -> usize {
        self.model.token_decoder().block_length()
    }

    fn start(&mut self, written: &[Written<'_>], arriving: &[Arrival]) -> Tensor<2> {
        let (l, e) = (self.block_length(), self.model.embeddings_per_block());
        let mut slots: Vec<usize> = written.iter().map(|block| block.slot).collect();
        let mut contexts = Vec::new();
        if !written.is_empty() {
            contexts.push(self.extend(written));
        }
        for group in Group::all(arriving, l, e) {
            contexts.push(self.read(&group));
            slots.extend(&group.slots);
        }
        let contexts = match contexts.len() {
            1 => contexts.remove(0),
            _ => Tensor::cat(contexts, 0),
        };
        let decoder = self.model.token_decoder();
        let (rows, first) = (slots.len(), decoder.first_positions());
        self.work.expanded += rows * e;
        self.work.token.add(rows * first, rows);
        self.work.logits += rows;
        let (block, logits) = decoder.start(in_slot_order(contexts, &slots), &mut self.tokens);
        self.in_progress = Some(block);
        logits
    }

    fn next(&mut self, kept: &[usize], ids: &[u32]) -> Tensor<2> {
        let block = self.in_progress.as_mut().expect("a block was started");
        block.keep(kept);
        self.work.token.add(ids.len(), ids.len());
        self.work.logits += ids.len();
        let ids = int_tensor(ids.iter().copied(), &self.device);
        self.model.token_decoder().next(block, ids, &mut self.tokens)
    }

    fn fill(&mut self) {
        self.blocks.iter_mut().for_each(KvCache::fill_random);
    }

    fn work(&self) -> Work {
        self.work
    }
}
