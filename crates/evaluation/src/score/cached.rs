//! Scores of continuations by the path of decoding: through KV caches.

use block_transformer_family::{CacheFormat, CacheRoom, Family, PaddingMask};
use block_transformer_layers::{Positions, int_tensor};
use burn::tensor::{Device, ExecutionError, Tensor};

use crate::error::EvalError;
use crate::score::alignment::Alignment;
use crate::score::rows::{Input, Rows, ids_tensor};

/// Blocks that are run together.
const CHUNK: usize = 512;
/// Blocks whose tokens are scored together.
const SCORED_BLOCKS: usize = 32;

/// Whether `model` can read several tokens of a block through its caches.
pub(super) fn is_supported<M: Family>(model: &M, device: &Device) -> bool {
    let room = CacheRoom { slots: 1, blocks: 1, format: CacheFormat::F32 };
    model.decoder(room, device).speculative().is_some()
}

/// Scores the tokens of all continuations with keys and values in `format`. `score` scores a target per row of
/// logits `[rows, vocab]`.
///
/// # Errors
/// [`EvalError::Device`] when the scores cannot be read.
pub(super) fn scores<M: Family, S: Clone>(
    model: &M,
    l: usize, // block length
    alignment: Alignment,
    inputs: &[&Input<'_>],
    format: CacheFormat,
    device: &Device,
    score: impl Fn(Tensor<2>, &[u32]) -> Result<Vec<S>, ExecutionError>,
) -> Result<Vec<S>, EvalError> {
    let Rows { ids, is_token, rows, n, before, written, scored } = Rows::new(inputs, l, alignment);
    let mut decoding = model.decoder(CacheRoom { slots: rows, blocks: n, format }, device);
    let decoding = decoding.speculative().expect("a scorer with caches has checked this");
    let at_once = (CHUNK / rows).max(1);
    // the blocks of continuations in the order in which the blocks before them are run
    let (row_of, block_of) = (|i: usize| before[i] as usize / n, |i: usize| before[i] as usize % n);
    let mut order: Vec<usize> = (0..before.len()).collect();
    order.sort_by_key(|&i| block_of(i));
    let mut next = 0;
    let mut by_block = vec![Vec::new(); before.len()];
    for first in (0..n).step_by(at_once) {
        let count = at_once.min(n - first);
        let of_row = |row: usize| (row * n + first) * l..(row * n + first + count) * l;
        let part: Vec<u32> = (0..rows).flat_map(|row| &ids[of_row(row)]).copied().collect();
        let mask = (0..rows).flat_map(|row| &is_token[of_row(row)]).copied().collect();
        let states = decoding.append_all(
            ids_tensor(&part, [rows, count, l], device),
            &PaddingMask::new(mask),
            &Positions::Same(first),
        );
        let [_, positions, width] = states.dims();
        let states = states.reshape([rows * count, positions / count, width]);
        let end = order.partition_point(|&i| block_of(i) < first + count);
        for blocks in order[next..end].chunks(SCORED_BLOCKS) {
            let place = |&i: &usize| row_of(i) * count + block_of(i) - first;
            let states = states.clone().select(0, int_tensor(blocks.iter().map(place), device));
            let of = |&i: &usize| &written[i * l..(i + 1) * l];
            let known: Vec<u32> = blocks.iter().flat_map(|i| &of(i)[..l - 1]).copied().collect();
            let known = (l > 1).then(|| ids_tensor(&known, [blocks.len(), l - 1], device));
            let logits = decoding.start_guessed(states, known);
            let [_, _, vocab] = logits.dims();
            let targets: Vec<u32> = blocks.iter().flat_map(of).copied().collect();
            let logits = logits.reshape([blocks.len() * l, vocab]);
            let found = score(logits, &targets).map_err(EvalError::Device)?;
            for (&i, found) in blocks.iter().zip(found.chunks(l)) {
                by_block[i] = found.to_vec();
            }
        }
        next = end;
    }
    let all: Vec<S> = by_block.into_iter().flatten().collect();
    Ok(scored.into_iter().map(|at| all[at as usize].clone()).collect())
}
