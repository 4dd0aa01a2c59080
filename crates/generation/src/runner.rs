//! Executes the steps that a scheduler plans.

use block_transformer_family::{
    BlockDecoding, CacheRoom, Family, FamilyConfig, FloatFormat, PaddingMask,
};
use block_transformer_layers::{Indices, Positions, chooses, int_tensor};
use burn::tensor::{Device, Tensor};

use crate::error::GenerationError;
use crate::limits::Limits;
use crate::on_device::OnDevice;
use crate::prompts::Group;
use crate::sampling::Sampler;
use crate::scheduler::{FinishedBlock, NewPrompt, SchedulerOutput};

/// Executes the steps that a scheduler plans. It groups prompts and splits long ones into chunks.
/// The arithmetic and the KV caches belong to the decoding state of the model.
pub(crate) struct Runner {
    pub decoding: Box<dyn BlockDecoding>,
    block_length: usize,
    positions_per_block: usize,
    device: Device,
    /// The slots of the last append, whose copy on the device is used again.
    slots: Indices,
    on_device: OnDevice,
}

impl Runner {
    /// Allocates the decoding state of `model`.
    pub(crate) fn new<M: Family>(
        model: &M,
        limits: Limits,
        cache: FloatFormat,
        device: &Device,
    ) -> Self {
        // under autodiff every step would be recorded
        let device = device.clone().without_autodiff();
        let (config, slots) = (model.config(), limits.max_sequences);
        let room = CacheRoom { slots, blocks: limits.cached_blocks(&config), format: cache };
        let decoding = model.valid().decoder(room, &device);
        let (block_length, positions_per_block) =
            (config.block_length(), config.stacks().embeddings_per_block);
        let (slots, on_device) = (Indices::default(), OnDevice::default());
        Self { decoding, block_length, positions_per_block, device, slots, on_device }
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
        let slots: Indices = finished.iter().map(|block| block.slot).collect();
        if slots != self.slots {
            self.slots = slots;
        }
        let ids = self.on_device.block_of(&self.slots).unwrap_or_else(|| {
            let ids = finished.iter().flat_map(|block| block.ids);
            int_tensor(ids.copied(), &self.device).reshape([rows, length])
        });
        let starts = finished.iter().map(|block| block.before).collect();
        let at = Positions::Slots { slots: self.slots.clone(), starts };
        self.decoding.append(ids.reshape([rows, 1, length]), &PaddingMask::full(), &at)
    }

    /// Whether the device chooses tokens itself.
    pub(crate) fn chooses(&self) -> bool {
        chooses(&self.device)
    }

    /// Chooses the tokens of the block that begins with `logits` `[rows, vocab]` on the device; `slots`
    /// and `samplers` are those of the rows. Returns the tokens by place and row; `None` stands for
    /// logits that are not finite.
    ///
    /// # Errors
    /// [`GenerationError::Device`] when the tokens cannot be read.
    pub(crate) fn rest_of_block(
        &mut self,
        logits: &Tensor<2>,
        slots: Vec<usize>,
        samplers: &mut [&mut Sampler],
    ) -> Result<Vec<Vec<Option<u32>>>, GenerationError> {
        let all: Vec<usize> = (0..slots.len()).collect();
        let mut choices = self.on_device.start(logits, samplers, self.block_length);
        let mut ids = choices.choose(logits);
        for _ in 1..self.block_length {
            ids = choices.choose(&self.decoding.decode(&all, ids));
        }
        self.on_device.finish(slots, choices)
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
