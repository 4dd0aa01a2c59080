//! Prompts as the blocks that a decoder runs.

use block_transformer_layers::{Positions, int_tensor};
use block_transformer_zoo::PaddingMask;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::PAD;
use crate::decoder::Arrival;

/// Positions of a prompt that are run together, which bounds the memory of long ones.
pub const CHUNK: usize = 512;

/// Positions that are run together when several prompts share them: so few that a prompt has the
/// bits it has alone. There is little to gain from more, where the arithmetic takes longer than
/// reading the matrices.
const SHARED: usize = block_transformer_layers::BATCH_INVARIANT_ROWS;

/// Arrivals of as many blocks each.
pub(crate) struct Group {
    pub slots: Vec<usize>,
    after: Vec<usize>,
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
    /// `[rows, n * block_length]`
    pub is_token: PaddingMask,
    /// Where its blocks go, counted in blocks.
    pub at: Positions,
}

impl Group {
    /// Groups of `arriving`, for a decoder of `per_block` positions a block.
    pub fn all(arriving: &[Arrival], block_length: usize, per_block: usize) -> Vec<Self> {
        let blocks = |arrival: &&Arrival| arrival.prompt.len().div_ceil(block_length);
        let mut by_length: Vec<&Arrival> = arriving.iter().collect();
        by_length.sort_by_key(blocks);
        by_length
            .chunk_by(|a, b| blocks(a) == blocks(b))
            .flat_map(|same| {
                let rows = SHARED / (blocks(&same[0]) * per_block);
                same.chunks(rows.max(1)).map(|rows| Self::new(rows, block_length))
            })
            .collect()
    }

    fn new(rows: &[&Arrival], block_length: usize) -> Self {
        let blocks = rows.first().map_or(0, |row| row.prompt.len().div_ceil(block_length));
        let width = blocks * block_length;
        let (mut ids, mut is_token) = (Vec::new(), Vec::new());
        for row in rows {
            let padding = width - row.prompt.len();
            ids.extend(std::iter::repeat_n(PAD, padding).chain(row.prompt.iter().copied()));
            is_token.extend((0..width).map(|i| i >= padding));
        }
        Self {
            slots: rows.iter().map(|row| row.slot).collect(),
            after: rows.iter().map(|row| row.after).collect(),
            ids,
            is_token,
            blocks,
            block_length,
        }
    }

    /// The group's blocks in order, as many at a time as have [`CHUNK`] positions a row.
    pub fn chunks(&self, per_block: usize, device: &Device) -> impl Iterator<Item = Chunk> {
        let most = (CHUNK / per_block).max(1);
        (0..self.blocks).step_by(most).map(move |start| {
            let n = most.min(self.blocks - start);
            let shape = [self.slots.len(), n, self.block_length];
            let (width, l) = (self.blocks * self.block_length, self.block_length);
            let rows = 0..self.slots.len();
            let part = |row: usize| row * width + start * l..row * width + (start + n) * l;
            let ids = rows.clone().flat_map(|row| &self.ids[part(row)]).map(|&id| i64::from(id));
            let is_token = rows.flat_map(|row| &self.is_token[part(row)]).copied().collect();
            let ids = TensorData::new(ids.collect::<Vec<_>>(), shape);
            let starts = self.after.iter().map(|after| after + start).collect();
            Chunk {
                ids: Tensor::from_data(ids, device),
                is_token: PaddingMask::new(is_token),
                at: Positions::Slots { slots: self.slots.clone(), starts },
            }
        })
    }
}

/// Rows of `x` `[rows, _, _]`, which belong to `slots`, in the order of the slots.
pub(crate) fn in_slot_order(x: Tensor<3>, slots: &[usize]) -> Tensor<3> {
    if slots.is_sorted() {
        return x;
    }
    let mut rows: Vec<usize> = (0..slots.len()).collect();
    rows.sort_by_key(|&row| slots[row]);
    let rows = int_tensor(rows, &x.device());
    x.select(0, rows)
}
