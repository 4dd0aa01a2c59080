//! Logits of a batch against those of one sequence, of a pass without caches, and of another device.

use block_transformer_family::{FamilyConfig, TokenBatch};
use block_transformer_testing::{model, prompts_of, shape, shapes};
use block_transformer_text::PAD;
use block_transformer_zoo::LanguageModel;

use super::*;
use crate::event::Event;
use crate::options::Options;
use crate::sampling::Sampling;
use crate::scheduler::Scheduler;

mod prefixes;

/// Tolerance of logits that are summed in a different order, relative to the largest logit.
const TOLERANCE: f32 = 2e-4;

/// Lengths of the prompts and of their continuations.
const SEQUENCES: [(usize, usize); 6] = [(1, 9), (3, 14), (30, 2), (9, 14), (29, 11), (30, 6)];

/// The tokens of a sequence, and the logits before each of them.
#[derive(Clone, Default)]
struct Decoded {
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

/// Decodes sequences of these lengths together, except the last one, which starts when another one
/// has ended. Their tokens are drawn at random and do not depend on the logits.
fn decode(model: &LanguageModel, lengths: &[(usize, usize)], device: &Device) -> Vec<Decoded> {
    decode_in_pieces(model, lengths, (usize::MAX, CacheFormat::F32), device)
}

/// [`decode`] with prompts in pieces of at most `prompt_blocks` blocks while others are decoded.
fn decode_in_pieces(
    model: &LanguageModel,
    lengths: &[(usize, usize)],
    (prompt_blocks, format): (usize, CacheFormat),
    device: &Device,
) -> Vec<Decoded> {
    let max_sequences = lengths.len().max(2) - 1;
    let longest = lengths.iter().map(|(prompt, count)| prompt + count).max();
    let limits = Limits { max_sequences, max_tokens: longest.unwrap().max(50) };
    let mut runner = Runner::new(model, limits, format, device);
    let length = model.config().block_length();
    let mut scheduler = Scheduler::new(length, max_sequences, prompt_blocks);
    for &(length, max_tokens) in lengths {
        let (sampling, rng_stream) = (Sampling::at(1.0, 3), 100 * length + max_tokens);
        let allowed_vocab = Some(250);
        let options = Options {
            sampling,
            max_tokens,
            eos: None,
            allowed_vocab,
            rng_stream,
            ..Options::default()
        };
        scheduler.submit(prompts_of([length]).remove(0), 0, &options);
    }
    let mut decoded = vec![Decoded::default(); lengths.len()];
    while let Some(planned) = scheduler.plan() {
        let logits = values(runner.run(&planned));
        let samplers = scheduler.samplers().into_iter();
        let chosen = samplers.map(|sampler| sampler.choose_with_logprobs(&[0.0; 250])).collect();
        let mut events = Vec::new();
        scheduler.settle(chosen, &mut events);
        let tokens = events.into_iter().filter_map(|event| match event {
            Event::Token { id, token, .. } => Some((id.index(), token)),
            Event::Finished { .. } => None,
        });
        for ((sequence, token), logits) in tokens.zip(logits) {
            decoded[sequence].tokens.push(token);
            decoded[sequence].logits.push(logits);
        }
    }
    decoded
}

/// The rows of a tensor `[rows, vocab]`.
fn values(logits: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, vocab] = logits.dims();
    let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
    values.chunks(vocab).map(<[f32]>::to_vec).collect()
}

/// The logits of `tokens` after a prompt of `length` tokens, from one pass over the whole sequence.
fn without_caches(
    model: &LanguageModel,
    length: usize,
    tokens: &[u32],
    device: &Device,
) -> Vec<Vec<f32>> {
    let l = model.config().block_length();
    let left = length.next_multiple_of(l) - length;
    let mut ids = [vec![PAD; left], prompts_of([length]).remove(0), tokens.to_vec()].concat();
    let until = ids.len();
    let time = until.next_multiple_of(l);
    ids.resize(time, PAD);
    let batch = TokenBatch {
        ids: int_tensor(ids, device).reshape([1, time]),
        is_token: PaddingMask::new((0..time).map(|i| (left..until).contains(&i)).collect()),
        block_length: l,
    };
    let (logits, _) = model.predict(&batch);
    values(logits.narrow(1, left + length - l, tokens.len()).squeeze_dim(0))
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
    let bits = |logits: &[Vec<f32>]| -> Vec<u32> {
        logits.iter().flatten().map(|logit| logit.to_bits()).collect()
    };
    for (name, config) in shapes() {
        let model = model(&config, &device);
        for (batch, lengths) in decode(&model, &SEQUENCES, &device).iter().zip(SEQUENCES) {
            let alone = decode(&model, &[lengths], &device).remove(0);
            assert_eq!(alone.logits.len(), lengths.1);
            assert_eq!(alone.tokens, batch.tokens, "{name}, {lengths:?}");
            assert!(bits(&batch.logits) == bits(&alone.logits), "{name}, {lengths:?}");
        }
        // matrices in panels are multiplied in the same order
        let prepared = model.clone().prepared();
        assert_eq!(prepared.weight_bytes(), model.weight_bytes());
        for (ours, theirs) in
            decode(&prepared, &SEQUENCES, &device).iter().zip(decode(&model, &SEQUENCES, &device))
        {
            assert!(bits(&ours.logits) == bits(&theirs.logits), "{name}, prepared");
        }
    }
}

#[test]
fn a_prompt_in_pieces_has_the_bits_of_the_whole() {
    let device = Device::flex();
    // the last prompt is run while the others are decoded
    let lengths = [(5, 150), (40, 3), (140, 6)];
    for (name, config) in shapes() {
        let model = model(&config, &device).prepared();
        for format in [CacheFormat::F32, CacheFormat::Bf16, CacheFormat::Int8] {
            let [whole, ours @ ..] = [usize::MAX, 1, 7].map(|prompt_blocks| {
                decode_in_pieces(&model, &lengths, (prompt_blocks, format), &device)
            });
            for (pieces, ours) in [1, 7].into_iter().zip(ours) {
                for (ours, whole) in ours.iter().zip(&whole) {
                    let what = format!("{name}, {format}, pieces of {pieces} blocks");
                    assert_eq!(ours.tokens, whole.tokens, "{what}");
                    let bits = |decoded: &Decoded| -> Vec<u32> {
                        decoded.logits.iter().flatten().map(|logit| logit.to_bits()).collect()
                    };
                    assert!(bits(ours) == bits(whole), "{what}");
                }
            }
        }
    }
}

#[test]
fn logits_with_and_without_caches_agree() {
    let device = Device::flex();
    let cases = shapes().into_iter().map(|(name, config)| (name, config, SEQUENCES.to_vec()));
    // prompts that are prefilled in several chunks
    let long = [("prefix", 2100), ("two embeddings", 1090), ("vanilla", 520)];
    let long = long.map(|(name, length)| (name, shape(name), vec![(length, 6)]));
    for (name, config, lengths) in cases.chain(long) {
        let model = model(&config, &device);
        for (ours, (length, _)) in decode(&model, &lengths, &device).iter().zip(lengths) {
            let theirs = without_caches(&model, length, &ours.tokens, &device);
            assert_close(&ours.logits, &theirs, &format!("{name}, prompt of {length} tokens"));
        }
    }
}

#[test]
fn devices_agree() {
    let device = Device::flex();
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let other = Device::ndarray();
    for (name, config) in shapes() {
        let [ours, theirs] =
            [&device, &other].map(|device| decode(&model(&config, device), &SEQUENCES, device));
        for (sequence, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_close(&ours.logits, &theirs.logits, &format!("{name}, sequence {sequence}"));
        }
    }
}
