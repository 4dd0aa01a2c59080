//! A model of any family behind the scheduler.

use block_transformer_layers::{Positions, int_tensor};
use block_transformer_zoo::PaddingMask;
use block_transformer_zoo::family::{BlockDecoding, Work};
use burn::tensor::{Device, Tensor};

use crate::decoder::{Arrival, Decoder, Written};
use crate::prompts::{Group, in_slot_order};

/// Turns prompts and finished blocks into the calls of [`BlockDecoding`].
pub(crate) struct Runner {
    model: Box<dyn BlockDecoding + Send>,
    device: Device,
}

impl Runner {
    pub fn new(model: Box<dyn BlockDecoding + Send>, device: &Device) -> Self {
        Self { model, device: device.clone() }
    }

    /// States `[rows, k, width]` after the last block of each prompt.
    fn read(&mut self, prompts: &Group) -> Tensor<3> {
        let mut last = None;
        for chunk in prompts.chunks(self.model.positions_per_block(), &self.device) {
            last = Some(self.model.append(chunk.ids, &chunk.is_token, &chunk.at));
        }
        last.expect("a prompt has a block")
    }

    /// States `[rows, k, width]` after the blocks just written.
    fn extend(&mut self, written: &[Written<'_>]) -> Tensor<3> {
        let ids: Vec<u32> = written.iter().flat_map(|block| block.ids).copied().collect();
        let shape = [written.len(), 1, self.model.block_length()];
        let ids = int_tensor(ids, &self.device).reshape(shape);
        let at = Positions::Slots {
            slots: written.iter().map(|block| block.slot).collect(),
            starts: written.iter().map(|block| block.after).collect(),
        };
        self.model.append(ids, &PaddingMask::full(), &at)
    }
}

impl Decoder for Runner {
    fn block_length(&self) -> usize {
        self.model.block_length()
    }

    fn start(&mut self, written: &[Written<'_>], arriving: &[Arrival]) -> Tensor<2> {
        let mut slots: Vec<usize> = written.iter().map(|block| block.slot).collect();
        let mut states = Vec::new();
        if !written.is_empty() {
            states.push(self.extend(written));
        }
        let (length, positions) = (self.block_length(), self.model.positions_per_block());
        for group in Group::all(arriving, length, positions) {
            states.push(self.read(&group));
            slots.extend(&group.slots);
        }
        let states = match states.len() {
            1 => states.remove(0),
            _ => Tensor::cat(states, 0),
        };
        self.model.start(in_slot_order(states, &slots))
    }

    fn next(&mut self, kept: &[usize], ids: &[u32]) -> Tensor<2> {
        self.model.decode(kept, int_tensor(ids.iter().copied(), &self.device))
    }

    fn fill(&mut self) {
        self.model.fill_random();
    }

    fn work(&self) -> Work {
        self.model.work()
    }
}
