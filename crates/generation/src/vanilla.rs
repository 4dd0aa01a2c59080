//! One step of the model a token, which is a block of its own.

use block_transformer_layers::{KvCache, Positions, int_tensor};
use block_transformer_zoo::vanilla::{GptNeoX, GptNeoXCache};
use burn::tensor::{Device, Tensor};

use crate::Work;
use crate::decoder::{Arrival, Decoder, Written};
use crate::prompts::{Group, in_slot_order};

pub(crate) struct VanillaDecoder {
    model: GptNeoX,
    /// By slot.
    cache: GptNeoXCache,
    device: Device,
    work: Work,
}

impl VanillaDecoder {
    pub fn new(model: GptNeoX, slots: usize, tokens: usize, device: &Device) -> Self {
        let cache = model.new_cache(slots, tokens, device);
        Self { model, cache, device: device.clone(), work: Work::default() }
    }

    /// Hidden states `[rows, 1, h]` of the last token of each prompt.
    fn read(&mut self, prompts: &Group) -> Tensor<3> {
        let mut last = None;
        for chunk in prompts.chunks(1, &self.device) {
            let [rows, n, _] = chunk.ids.dims();
            let ids = chunk.ids.reshape([rows, n]);
            last = Some(self.model.hidden_cached(ids, &chunk.at, 1, &mut self.cache));
            self.work.token.add(rows * n, rows);
        }
        last.expect("a prompt has a token")
    }

    /// Hidden states `[rows, 1, h]` of the tokens just written.
    fn extend(&mut self, written: &[Written<'_>]) -> Tensor<3> {
        let rows = written.len();
        let ids: Vec<u32> = written.iter().flat_map(|token| token.ids).copied().collect();
        let ids = int_tensor(ids, &self.device).reshape([rows, 1]);
        let at = Positions::Slots {
            slots: written.iter().map(|token| token.slot).collect(),
            starts: written.iter().map(|token| token.after).collect(),
        };
        self.work.token.add(rows, rows);
        self.model.hidden_cached(ids, &at, 1, &mut self.cache)
    }
}

impl Decoder for VanillaDecoder {
    fn block_length(&self) -> usize {
        1
    }

    fn start(&mut self, written: &[Written<'_>], arriving: &[Arrival]) -> Tensor<2> {
        let mut slots: Vec<usize> = written.iter().map(|token| token.slot).collect();
        let mut hidden = Vec::new();
        if !written.is_empty() {
            hidden.push(self.extend(written));
        }
        for group in Group::all(arriving, 1, 1) {
            hidden.push(self.read(&group));
            slots.extend(&group.slots);
        }
        let hidden = match hidden.len() {
            1 => hidden.remove(0),
            _ => Tensor::cat(hidden, 0),
        };
        self.work.logits += slots.len();
        let logits = self.model.logits(in_slot_order(hidden, &slots)); // [rows, 1, v]
        let [rows, _, vocab] = logits.dims();
        logits.reshape([rows, vocab])
    }

    fn next(&mut self, _: &[usize], _: &[u32]) -> Tensor<2> {
        unreachable!("a block of one token has no next one")
    }

    fn fill(&mut self) {
        self.cache.iter_mut().for_each(KvCache::fill_random);
    }

    fn work(&self) -> Work {
        self.work
    }
}
