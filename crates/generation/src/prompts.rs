//! Joins blocks of prompts to the batches that a prefill runs.

use block_transformer_family::PaddingMask;
use block_transformer_layers::{Positions, chooses, int_tensor};
use block_transformer_text::PAD;
use burn::tensor::{Device, Int, Tensor};

use crate::scheduler::PromptPiece;

/// The largest number of positions of prompts that a prefill runs together on a processor. It limits the
/// memory of prompts.
pub const PREFILL_CHUNK: usize = 512;

/// The same on CubeCL devices, which are slower with fewer rows.
pub const GPU_PREFILL_CHUNK: usize = 2048;

/// Positions of prompts that a step runs on a processor while sequences are running, unless an engine is given
/// another number. Products reach most of their speed with 128 rows.
const PREFILL_BUDGET: usize = 256;

/// Returns the largest number of positions that a prefill runs together on `device`.
pub(crate) fn prefill_chunk(device: &Device) -> usize {
    if chooses(device) { GPU_PREFILL_CHUNK } else { PREFILL_CHUNK }
}

/// Returns how many positions of prompts a step runs on `device` while sequences are running.
pub(crate) fn prefill_budget(device: &Device) -> usize {
    if chooses(device) { GPU_PREFILL_CHUNK } else { PREFILL_BUDGET }
}

/// Distributes `pieces` over batches of at most `most` blocks. Only pieces that are longer than a batch are
/// split. Pieces of equal length are neighbours.
pub(crate) fn batches(mut pieces: Vec<PromptPiece>, most: usize) -> Vec<Vec<PromptPiece>> {
    pieces.sort_by_key(|piece| piece.blocks.len());
    let mut batches = Vec::new();
    let mut batch: Vec<PromptPiece> = Vec::new();
    let mut room = most;
    for piece in pieces {
        let mut start = piece.blocks.start;
        while start < piece.blocks.end {
            let left = piece.blocks.end - start;
            if room == 0 || (left > room && left <= most) {
                batches.push(std::mem::take(&mut batch));
                room = most;
            }
            let end = start + left.min(room);
            room -= end - start;
            batch.push(PromptPiece { blocks: start..end, ..piece.clone() });
            start = end;
        }
    }
    batches.extend((!batch.is_empty()).then_some(batch));
    batches
}

/// The inputs of a batch.
pub(crate) struct Inputs {
    /// `[rows, n, block_length]`, or `[1, all blocks, block_length]` for pieces of different lengths
    pub ids: Tensor<3, Int>,
    pub is_token: PaddingMask,
    /// Slot and first block of each piece.
    pub at: Positions,
}

impl Inputs {
    /// The inputs of `pieces` in blocks of `block_length` tokens.
    pub(crate) fn new(pieces: &[PromptPiece], block_length: usize, device: &Device) -> Self {
        let (mut ids, mut is_token) = (Vec::new(), Vec::new());
        for PromptPiece { ids: prompt, blocks, total, .. } in pieces {
            let padding = total * block_length - prompt.len();
            let at = blocks.start * block_length..blocks.end * block_length;
            ids.extend(at.clone().map(|i| if i < padding { PAD } else { prompt[i - padding] }));
            is_token.extend(at.map(|i| i >= padding));
        }
        let slots = pieces.iter().map(|piece| piece.slot).collect();
        let starts = pieces.iter().map(|piece| piece.before + piece.blocks.start).collect();
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.blocks.len()).collect();
        let (rows, at) = if lengths.iter().all(|length| *length == lengths[0]) {
            (pieces.len(), Positions::Slots { slots, starts })
        } else {
            (1, Positions::Ragged { slots, starts, lengths: lengths.into() })
        };
        let shape = [rows, ids.len() / block_length / rows, block_length];
        let ids = int_tensor(ids, device).reshape(shape);
        Self { ids, is_token: PaddingMask::new(is_token), at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(batches: &[Vec<PromptPiece>]) -> Vec<Vec<(usize, usize)>> {
        let of = |piece: &PromptPiece| (piece.slot, piece.blocks.len());
        batches.iter().map(|batch| batch.iter().map(of).collect()).collect()
    }

    #[test]
    fn batches_are_full_and_split_long_prompts_only() {
        let prompts = [3, 9, 3, 4, 1].into_iter().enumerate().map(|(slot, total)| PromptPiece {
            slot,
            before: 0,
            ids: vec![1; total].into(),
            blocks: 0..total,
            total,
            goes_on: false,
            heads: Vec::new(),
        });
        let batches = batches(prompts.collect(), 8);
        let expected = [vec![(4, 1), (0, 3), (2, 3)], vec![(3, 4), (1, 4)], vec![(1, 5)]];
        assert_eq!(lengths(&batches), expected);
        let last: Vec<bool> = batches.iter().flatten().map(PromptPiece::is_last).collect();
        assert_eq!(last, [true, true, true, true, false, true]);
    }
}
