//! Executes the steps that a scheduler plans.

use std::sync::MutexGuard;

use block_transformer_family::{
    BlockDecoding, CacheFormat, CacheRoom, Family, FamilyConfig, PaddingMask,
};
use block_transformer_layers::{Indices, Positions, chooses, has_graphs, int_tensor};
use burn::tensor::{Device, Tensor};

use crate::error::GenerationError;
use crate::graphs::{BlockGraphs, GraphSizes, LastBlock, SharedDecoding};
use crate::host_rows::HostRows;
use crate::limits::Limits;
use crate::on_device::{OnDevice, by_place};
use crate::prefixes::Head;
use crate::prompts::{Inputs, batches, prefill_chunk};
use crate::sampler::{Choice, Sampler};
use crate::scheduler::{FinishedBlock, PromptPiece, Prompts, Restored, Round, SchedulerOutput};

/// Executes the steps that a scheduler plans. It joins the blocks of prompts to batches.
/// The arithmetic and the KV caches belong to the decoding state of the model.
pub(crate) struct Runner {
    decoding: SharedDecoding,
    sizes: GraphSizes,
    vocab: usize,
    device: Device,
    /// See [`Family::batch_invariant_rows`].
    invariant_rows: Option<usize>,
    /// Rows of the largest product that appends a block.
    append_rows: usize,
    /// The slots of the last append, whose copy on the device is used again.
    slots: Indices,
    on_device: OnDevice,
    graphs: Option<BlockGraphs>,
}

/// A block that has been started.
pub(crate) enum Started {
    /// The logits `[rows, vocab]` of its first tokens, in slot order.
    Logits(Box<Tensor<2>>),
    /// The last blocks in slot order, which a graph appends.
    Blocks(Vec<LastBlock>),
}

impl Runner {
    /// Allocates the decoding state of `model`.
    pub(crate) fn new<M: Family>(
        model: &M,
        limits: Limits,
        cache: CacheFormat,
        device: &Device,
    ) -> Self {
        // under autodiff every step would be recorded
        let device = device.clone().without_autodiff();
        let (config, slots) = (model.config(), limits.max_sequences);
        let room = CacheRoom { slots, blocks: limits.cached_blocks(&config), format: cache };
        let decoding = SharedDecoding::new(model.valid().decoder(room, &device));
        let sizes = GraphSizes {
            slots,
            blocks: room.blocks,
            block_length: config.block_length(),
            positions_per_block: config.stacks().embeddings_per_block,
        };
        let (slots, on_device) = (Indices::default(), OnDevice::default());
        let vocab = config.vocab_size();
        let invariant_rows = model.batch_invariant_rows();
        let append_rows = config.stacks().append_rows();
        let mut runner = Self {
            decoding,
            sizes,
            vocab,
            device,
            invariant_rows,
            append_rows,
            slots,
            on_device,
            graphs: None,
        };
        runner.set_graphs(has_graphs(&runner.device));
        runner
    }

    /// Turns the capture of blocks as graphs on or off. It stays off where the device or the model
    /// cannot append positions that only the device knows.
    pub(crate) fn set_graphs(&mut self, on: bool) {
        let on = on && self.chooses() && self.decoding.get().appends_on_device();
        let graphs = || BlockGraphs::new(self.decoding.clone(), self.device.clone(), self.sizes);
        self.graphs = on.then(graphs);
    }

    /// Whether the graph that was used last is one that the device replays itself.
    pub(crate) fn replayed(&self) -> bool {
        self.graphs.as_ref().is_some_and(BlockGraphs::replayed)
    }

    /// The device of the model.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The model's decoding state.
    pub(crate) fn decoding(&self) -> MutexGuard<'_, Box<dyn BlockDecoding>> {
        self.decoding.get()
    }

    /// Returns the logits `[rows, vocab]` of the next token of every planned row, in slot order.
    pub(crate) fn run(&mut self, planned: &SchedulerOutput<'_>) -> Tensor<2> {
        match planned {
            SchedulerOutput::Start { finished, prompts } => self.start(finished, prompts),
            SchedulerOutput::Continue { kept, ids } => {
                self.decoding.get().decode(kept, int_tensor(ids.iter().copied(), &self.device))
            }
        }
    }

    /// Starts a block of every sequence on a device that chooses its tokens itself.
    ///
    /// A graph appends the last complete block of each sequence; other blocks of prompts are run here. Graphs know
    /// neither the padding of a prompt that is shorter than a block nor blocks that are shared. Their rows without a
    /// sequence write to slots without a running one, which must not hold a part of a prompt.
    pub(crate) fn start_block(
        &mut self,
        finished: &[FinishedBlock<'_>],
        prompts: &Prompts,
    ) -> Started {
        let length = self.sizes.block_length;
        let pieces = prompts.plain().filter(|pieces| {
            self.graphs.is_some() && pieces.iter().all(|piece| piece.ids.len() >= length)
        });
        let Some(pieces) = pieces else {
            return Started::Logits(Box::new(self.start(finished, prompts)));
        };
        // the last block on the device is not that of the next step
        self.on_device.block_of(&[]);
        let mut last: Vec<LastBlock> = finished
            .iter()
            .map(|block| LastBlock {
                slot: block.slot,
                before: block.before,
                ids: block.ids.to_vec(),
            })
            .collect();
        let mut earlier = Vec::new();
        for mut piece in pieces.iter().cloned() {
            if piece.is_last() {
                piece.blocks.end -= 1;
                last.push(LastBlock {
                    slot: piece.slot,
                    before: piece.before + piece.blocks.end,
                    ids: piece.ids[piece.ids.len() - length..].to_vec(),
                });
            }
            if !piece.blocks.is_empty() {
                earlier.push(piece);
            }
        }
        self.run_pieces(earlier);
        last.sort_by_key(|block| block.slot);
        Started::Blocks(last)
    }

    /// Starts a block of every sequence and returns the logits of its first token.
    fn start(&mut self, finished: &[FinishedBlock<'_>], prompts: &Prompts) -> Tensor<2> {
        let mut slots: Vec<usize> = finished.iter().map(|block| block.slot).collect();
        let mut states = Vec::new();
        if !finished.is_empty() {
            states.push(self.append(finished));
        }
        for (of, last) in self.prefill(prompts) {
            states.push(last);
            slots.extend(of);
        }
        let states = if states.len() == 1 { states.remove(0) } else { Tensor::cat(states, 0) };
        self.decoding.get().start(in_slot_order(states, &slots))
    }

    /// The largest number of rows of a product for which the bits of a row do not depend on the others.
    pub(crate) fn invariant_rows(&self) -> Option<usize> {
        self.invariant_rows
    }

    /// Does the work on prompts. Returns the slots of prompts that end, with the states `[rows, k, width]` of their
    /// last blocks, where `k` is the number of positions per block.
    pub(crate) fn prefill(&mut self, prompts: &Prompts) -> Vec<(Vec<usize>, Tensor<3>)> {
        let mut ends = Vec::new();
        for Round { restored, pieces } in &prompts.rounds {
            for Restored { slot, head, from, starts } in restored {
                self.restore(*slot, head, *from);
                if *starts {
                    let states = head.states().expect("its last block was run");
                    ends.push((vec![*slot], states.clone()));
                }
            }
            ends.extend(self.run_pieces(pieces.clone()));
        }
        for (slot, head) in &prompts.kept {
            let positions = head.blocks * self.sizes.positions_per_block;
            let mut decoding = self.decoding.get();
            let layers = decoding.context_cache().iter().map(|layer| layer.part(*slot, positions));
            head.keep(layers.collect());
        }
        ends
    }

    /// Copies the blocks of `head` to `slot`, from the slot `from` or from those that are kept.
    fn restore(&mut self, slot: usize, head: &Head, from: Option<usize>) {
        let positions = head.blocks * self.sizes.positions_per_block;
        let mut decoding = self.decoding.get();
        for (i, layer) in decoding.context_cache().iter_mut().enumerate() {
            match from {
                Some(from) => layer.set_part(slot, &layer.part(from, positions)),
                None => layer.set_part(slot, &head.layers().expect("they are kept")[i]),
            }
        }
        drop(decoding);
        // a graph reads the memory of the cache, which may be another one now
        if let Some(graphs) = &mut self.graphs {
            graphs.clear();
        }
    }

    /// Runs pieces of prompts through the model, which adds them to the caches. Returns the slots of prompts that end,
    /// with the states of their last blocks.
    fn run_pieces(&mut self, pieces: Vec<PromptPiece>) -> Vec<(Vec<usize>, Tensor<3>)> {
        let chunk = prefill_chunk(&self.device) / self.sizes.positions_per_block;
        let most = self.invariant_rows.map_or(chunk, |rows| chunk.min(rows / self.append_rows));
        let mut ends = Vec::new();
        for batch in batches(pieces, most.max(1)) {
            let Inputs { ids, is_token, at } =
                Inputs::new(&batch, self.sizes.block_length, &self.device);
            let states = self.decoding.get().append(ids, &is_token, &at);
            for (row, piece) in batch.iter().enumerate().filter(|(_, piece)| piece.ends()) {
                for head in &piece.heads {
                    let row = int_tensor([row], &self.device);
                    head.set_states(|| states.clone().select(0, row));
                }
            }
            let last: Vec<usize> = (0..batch.len()).filter(|&row| batch[row].is_last()).collect();
            let slots: Vec<usize> = last.iter().map(|&row| batch[row].slot).collect();
            if last.len() == batch.len() {
                ends.push((slots, states));
            } else if !last.is_empty() {
                ends.push((slots, states.select(0, int_tensor(last, &self.device))));
            }
        }
        ends
    }

    /// Runs finished blocks through the model, which adds them to the caches. Returns their states
    /// `[rows, k, width]`, where `k` is the number of positions per block.
    pub(crate) fn append(&mut self, finished: &[FinishedBlock<'_>]) -> Tensor<3> {
        let (rows, length) = (finished.len(), self.sizes.block_length);
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
        self.decoding.get().append(ids.reshape([rows, 1, length]), &PaddingMask::full(), &at)
    }

    /// Whether the device chooses tokens itself.
    pub(crate) fn chooses(&self) -> bool {
        chooses(&self.device)
    }

    /// Chooses the tokens of the block that has been `started`, on the device except for [`HostRows`]; `slots` and
    /// `samplers` are those of the rows. Returns the tokens by place and row; `None` stands for logits that are not
    /// finite.
    ///
    /// # Errors
    /// [`GenerationError::Device`] when the tokens cannot be read.
    pub(crate) fn finish_block(
        &mut self,
        started: Started,
        slots: Vec<usize>,
        samplers: &mut [&mut Sampler],
    ) -> Result<Vec<Vec<Option<Choice>>>, GenerationError> {
        let (mut on_host, length) = (HostRows::of(samplers), self.sizes.block_length);
        let logits = match (started, &mut self.graphs) {
            (Started::Logits(logits), _) => *logits,
            (Started::Blocks(last), Some(graphs)) if on_host.is_empty() => {
                let block = graphs.run(&last, samplers, self.vocab);
                return Ok(on_host.merged(by_place(&block, last.len(), length)?));
            }
            // nothing can be read inside a graph
            (Started::Blocks(last), _) => self.start(
                &last.iter().map(LastBlock::finished).collect::<Vec<_>>(),
                &Prompts::default(),
            ),
        };
        let all: Vec<usize> = (0..slots.len()).collect();
        let mut choices = self.on_device.start(&logits, samplers, length);
        let ids = choices.choose(&logits);
        let mut ids = on_host.choose(&logits, samplers, ids)?;
        for _ in 1..length {
            let logits = self.decoding.get().decode(&all, ids);
            ids = choices.choose(&logits);
            ids = on_host.choose(&logits, samplers, ids)?;
        }
        let block = self.on_device.finish(slots, choices)?;
        if !on_host.is_empty() {
            // the block on the device lacks the tokens of the host
            self.on_device.block_of(&[]);
        }
        Ok(on_host.merged(block))
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
