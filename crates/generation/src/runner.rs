//! Executes the steps that a scheduler plans.

use block_transformer_family::{BlockDecoding, Family, FamilyConfig, PaddingMask};
use block_transformer_layers::{Positions, int_tensor};
use burn::tensor::{Device, Tensor};

use crate::limits::Limits;
use crate::prompts::Group;
use crate::scheduler::{FinishedBlock, NewPrompt, SchedulerOutput};

/// Executes the steps that a scheduler plans. It groups prompts and splits long ones into chunks.
/// The arithmetic and the KV caches belong to the decoding state of the model.
pub(crate) struct Runner {
    pub decoding: Box<dyn BlockDecoding>,
    block_length: usize,
    positions_per_block: usize,
    device: Device,
}

impl Runner {
    /// Allocates the decoding state of `model`.
    pub(crate) fn new<M: Family>(model: &M, limits: Limits, device: &Device) -> Self {
        // under autodiff every step would be recorded
        let device = device.clone().without_autodiff();
        let (config, slots) = (model.config(), limits.max_sequences);
        let decoding = model.valid().decoder(slots, limits.cached_blocks(&config), &device);
        let (block_length, positions_per_block) =
            (config.block_length(), config.stacks().embeddings_per_block);
        Self { decoding, block_length, positions_per_block, device }
    }

    /// Returns the logits `[rows, vocab]` of the next token of every planned row, in slot order.
    pub(crate) fn run(&mut self, planned: &SchedulerOutput<'_>) -> Tensor<2> {
        match planned {
            SchedulerOutput::Start { finished, new } => self.start(finished, new),
            SchedulerOutput::Continue { kept, ids } => {
                self.decoding.decode(kept, int_tensor(ids.iter().copied(), &self.device))
            }
        }
    }

    /// Starts a block of every sequence and returns the logits of its first token.
    fn start(&mut self, finished: &[FinishedBlock<'_>], new: &[NewPrompt]) -> Tensor<2> {
        let (length, positions) = (self.block_length, self.positions_per_block);
        let mut slots: Vec<usize> = finished.iter().map(|block| block.slot).collect();
        let mut states = Vec::new();
        if !finished.is_empty() {
            states.push(self.append(finished));
        }
        for group in Group::all(new, length, positions, &self.device) {
            states.push(self.prefill(&group));
            slots.extend(&group.slots);
        }
        let states = if states.len() == 1 { states.remove(0) } else { Tensor::cat(states, 0) };
        self.decoding.start(in_slot_order(states, &slots))
    }

    /// Runs prompts through the model, which adds them to the caches. Returns the states
    /// `[rows, k, width]` of their last blocks, where `k` is the number of positions per block.
    fn prefill(&mut self, prompts: &Group) -> Tensor<3> {
        let chunks = prompts.chunks(self.positions_per_block, &self.device);
        chunks
            .map(|chunk| self.decoding.append(chunk.ids, &chunk.is_token, &chunk.at))
            .last()
            .expect("a prompt has a block")
    }

    /// Runs finished blocks through the model, which adds them to the caches. Returns their states
    /// `[rows, k, width]`, where `k` is the number of positions per block.
    fn append(&mut self, finished: &[FinishedBlock<'_>]) -> Tensor<3> {
        let (rows, length) = (finished.len(), self.block_length);
        let ids = int_tensor(finished.iter().flat_map(|block| block.ids).copied(), &self.device);
        let at = Positions::Slots {
            slots: finished.iter().map(|block| block.slot).collect(),
            starts: finished.iter().map(|block| block.before).collect(),
        };
        self.decoding.append(ids.reshape([rows, 1, length]), &PaddingMask::full(), &at)
    }
}

/// Orders the rows of `x` `[rows, _, _]`, which belong to `slots`, by slot.
fn in_slot_order(x: Tensor<3>, slots: &[usize]) -> Tensor<3> {
    if slots.is_sorted() {
        return x;
    }
    let mut rows: Vec<usize> = (0..slots.len()).collect();
    rows.sort_by_key(|&row| slots[row]);
    let rows = int_tensor(rows, &x.device());
    x.select(0, rows)
}

#[cfg(test)]
mod tests;
