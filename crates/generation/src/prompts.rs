//! Groups prompts, and cuts them into the blocks that a prefill runs.

use block_transformer_family::PaddingMask;
use block_transformer_layers::{Positions, chooses, int_tensor};
use block_transformer_text::PAD;
use burn::tensor::{Device, Int, Tensor};

use crate::scheduler::NewPrompt;

/// The largest number of positions of a prompt that a prefill runs together on a processor. It limits
/// the memory of long prompts. A group of several prompts does not have more positions than this either.
pub const PREFILL_CHUNK: usize = 512;

/// The same on CubeCL devices, which are slower with fewer rows.
pub const GPU_PREFILL_CHUNK: usize = 2048;

/// Returns the largest number of positions that a prefill runs together on `device`.
pub(crate) fn prefill_chunk(device: &Device) -> usize {
    if chooses(device) { GPU_PREFILL_CHUNK } else { PREFILL_CHUNK }
}

/// New prompts with the same number of blocks.
pub(crate) struct Group {
    pub slots: Vec<usize>,
    /// Blocks before each prompt in its slot.
    before: Vec<usize>,
    /// `[rows, blocks, block_length]`, padded on the left of the first block.
    ids: Vec<u32>,
    is_token: Vec<bool>,
    blocks: usize,
    block_length: usize,
}

/// Consecutive blocks of a [`Group`].
pub(crate) struct Chunk {
    /// `[rows, n, block_length]`
    pub ids: Tensor<3, Int>,
    pub is_token: PaddingMask,
    /// Slot and first block of each row.
    pub at: Positions,
}

impl Group {
    /// Groups `prompts` by their number of blocks. A block has `per_block` positions.
    ///
    /// A group of several prompts has at most `most` positions, the number up to which the bits of each
    /// prompt are the same as without the others, and at most [`prefill_chunk`] positions.
    pub(crate) fn all(
        prompts: &[NewPrompt],
        block_length: usize,
        per_block: usize,
        most: Option<usize>,
        device: &Device,
    ) -> Vec<Self> {
        let chunk = prefill_chunk(device);
        let most = most.map_or(chunk, |most| most.min(chunk));
        let blocks = |prompt: &&NewPrompt| prompt.ids.len().div_ceil(block_length);
        let mut by_length: Vec<&NewPrompt> = prompts.iter().collect();
        by_length.sort_by_key(blocks);
        by_length
            .chunk_by(|a, b| blocks(a) == blocks(b))
            .flat_map(|same| {
                let rows = most / (blocks(&same[0]) * per_block);
                same.chunks(rows.max(1)).map(|rows| Self::new(rows, block_length))
            })
            .collect()
    }

    fn new(rows: &[&NewPrompt], block_length: usize) -> Self {
        let blocks = rows.first().map_or(0, |row| row.ids.len().div_ceil(block_length));
        let width = blocks * block_length;
        let (mut ids, mut is_token) = (Vec::new(), Vec::new());
        for row in rows {
            let padding = width - row.ids.len();
            ids.extend(std::iter::repeat_n(PAD, padding).chain(row.ids.iter().copied()));
            is_token.extend((0..width).map(|i| i >= padding));
        }
        Self {
            slots: rows.iter().map(|row| row.slot).collect(),
            before: rows.iter().map(|row| row.before).collect(),
            ids,
            is_token,
            blocks,
            block_length,
        }
    }

    /// Returns the group's blocks in order, in chunks of up to [`prefill_chunk`] positions per row.
    pub(crate) fn chunks(&self, per_block: usize, device: &Device) -> impl Iterator<Item = Chunk> {
        let most = (prefill_chunk(device) / per_block).max(1);
        (0..self.blocks).step_by(most).map(move |start| {
            let n = most.min(self.blocks - start);
            let shape = [self.slots.len(), n, self.block_length];
            let (width, l) = (self.blocks * self.block_length, self.block_length);
            let rows = 0..self.slots.len();
            let part = |row: usize| row * width + start * l..row * width + (start + n) * l;
            let ids = rows.clone().flat_map(|row| &self.ids[part(row)]).copied();
            let is_token = rows.flat_map(|row| &self.is_token[part(row)]).copied().collect();
            let starts = self.before.iter().map(|before| before + start).collect();
            Chunk {
                ids: int_tensor(ids, device).reshape(shape),
                is_token: PaddingMask::new(is_token),
                at: Positions::Slots { slots: self.slots.clone().into(), starts },
            }
        })
    }
}
