//! Logits of a batch against those of one sequence, of a pass without caches, and of another device.

use block_transformer_family::{FamilyConfig, TokenBatch};
use block_transformer_testing::{model, shapes};
use block_transformer_text::PAD;
use block_transformer_zoo::LanguageModel;
use burn::tensor::{Int, TensorData};

use super::*;
use crate::limits::Limits;

/// Tolerance of logits that are summed in a different order, relative to the largest logit.
const TOLERANCE: f32 = 2e-4;

/// The token at a place of a sequence. It does not depend on the logits.
fn token(sequence: usize, place: usize) -> u32 {
    2 + ((sequence * 31 + place * 17) % 250) as u32
}

/// Lengths of the prompts and of their continuations.
const SEQUENCES: [(usize, usize); 6] = [(1, 9), (3, 14), (30, 2), (9, 14), (29, 11), (30, 6)];

fn prompt(sequence: usize) -> Vec<u32> {
    (0..SEQUENCES[sequence].0).map(|i| token(sequence + 7, i)).collect()
}

struct Row {
    sequence: usize,
    slot: usize,
    /// Row in the previous step.
    row: usize,
    /// Blocks before the one in progress.
    blocks: usize,
    block: Vec<u32>,
    written: usize,
}

/// The logits of every token of `sequences`. All of them are decoded together, except the last one,
/// which starts when another one has ended.
fn logits(model: &LanguageModel, sequences: &[usize], device: &Device) -> Vec<Vec<Vec<f32>>> {
    let slots = sequences.len().max(2) - 1;
    let limits = Limits { max_sequences: slots, max_tokens: 50 };
    let mut runner = Runner::new(model, limits, device);
    let l = model.config().block_length();
    let mut waiting: Vec<usize> = sequences.iter().rev().copied().collect();
    let mut free: Vec<usize> = (0..slots).collect();
    let mut rows: Vec<Row> = Vec::new();
    let mut all = vec![Vec::new(); SEQUENCES.len()];
    let mut place = l;
    while !rows.is_empty() || !waiting.is_empty() {
        let logits = if rows.is_empty() || place == l {
            let mut new = Vec::new();
            let mut joining = Vec::new();
            while let (Some(&slot), Some(&sequence)) = (free.last(), waiting.last()) {
                free.pop();
                waiting.pop();
                let ids = prompt(sequence);
                let blocks = ids.len().div_ceil(l);
                joining.push(Row { sequence, slot, row: 0, blocks, block: Vec::new(), written: 0 });
                new.push(NewPrompt { slot, before: 0, ids });
            }
            let finished = rows
                .iter()
                .map(|row| FinishedBlock { slot: row.slot, before: row.blocks, ids: &row.block })
                .collect();
            let logits = runner.run(&Plan::Start { finished, new });
            for row in &mut rows {
                row.blocks += 1;
                row.block.clear();
            }
            rows.extend(joining);
            rows.sort_by_key(|row| row.slot);
            place = 0;
            logits
        } else {
            let kept = rows.iter().map(|row| row.row).collect();
            let ids = rows.iter().map(|row| row.block[place - 1]).collect();
            runner.run(&Plan::Continue { kept, ids })
        };
        let [_, vocab] = logits.dims();
        let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
        for (index, (row, values)) in rows.iter_mut().zip(values.chunks(vocab)).enumerate() {
            row.row = index;
            all[row.sequence].push(values.to_vec());
            row.block.push(token(row.sequence, row.written));
            row.written += 1;
        }
        rows.retain(|row| {
            let continues = row.written < SEQUENCES[row.sequence].1;
            if !continues {
                free.push(row.slot);
            }
            continues
        });
        place += 1;
    }
    all
}

/// The logits of a sequence's tokens from one pass over the whole sequence.
fn without_caches(model: &LanguageModel, sequence: usize, device: &Device) -> Vec<Vec<f32>> {
    let l = model.config().block_length();
    let (prompt, count) = (prompt(sequence), SEQUENCES[sequence].1);
    let left = prompt.len().next_multiple_of(l) - prompt.len();
    let mut ids = [vec![PAD; left], prompt].concat();
    let first = ids.len();
    ids.extend((0..count).map(|place| token(sequence, place)));
    let mut is_token: Vec<bool> = (0..ids.len()).map(|i| i >= left).collect();
    let time = ids.len().next_multiple_of(l);
    ids.resize(time, PAD);
    is_token.resize(time, false);
    let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
    let batch = TokenBatch {
        ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [1, time]), device),
        is_token: PaddingMask::new(is_token),
        block_length: l,
    };
    let (logits, _) = model.predict(&batch);
    let [_, _, vocab] = logits.dims();
    let values: Vec<f32> = logits.narrow(1, first - l, count).into_data().iter::<f32>().collect();
    values.chunks(vocab).map(<[f32]>::to_vec).collect()
}

fn assert_close(ours: &[Vec<f32>], theirs: &[Vec<f32>], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (place, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let scale = theirs.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
        for (a, b) in ours.iter().zip(theirs) {
            assert!((a - b).abs() <= TOLERANCE * scale, "{what}, token {place}: {a} {b}");
        }
    }
}

#[test]
fn a_batch_has_the_bits_of_its_sequences_alone() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        let batch = logits(&model, &[0, 1, 2, 3, 4, 5], &device);
        for sequence in 0..SEQUENCES.len() {
            let alone = logits(&model, &[sequence], &device);
            for (place, (batch, alone)) in batch[sequence].iter().zip(&alone[sequence]).enumerate()
            {
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert!(bits(batch) == bits(alone), "{name}, {sequence}, token {place}");
            }
        }
    }
}

#[test]
fn logits_with_and_without_caches_agree() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        let ours = logits(&model, &[0, 1, 2, 3, 4, 5], &device);
        for (sequence, ours) in ours.iter().enumerate() {
            let theirs = without_caches(&model, sequence, &device);
            assert_close(ours, &theirs, &format!("{name}, sequence {sequence}"));
        }
    }
}

#[test]
fn devices_agree() {
    let device = Device::flex();
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let other = Device::ndarray();
    for (name, config) in shapes() {
        let [ours, theirs] = [&device, &other]
            .map(|device| logits(&model(&config, device), &[0, 1, 2, 3, 4, 5], device));
        for (sequence, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_close(ours, theirs, &format!("{name}, sequence {sequence}"));
        }
    }
}
