//! The engine: no sequence changes the tokens of another, nothing is computed needlessly, and
//! requests that do not fit are refused.

mod common;

use std::collections::HashMap;

use block_transformer_family::{Family, Precision};
use block_transformer_generation::{
    Engine, Event, Finish, GenerationError, Limits, Options, PositionCounts, Sampling, SequenceId,
    Work,
};
use block_transformer_testing::{DAMAGED, VOCAB, damaged, model, prompts_of, shape, shapes};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::tensor::Device;
use common::uncached;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Options that differ in every field.
fn options(index: usize, max_tokens: usize) -> Options {
    let sampling = match index % 4 {
        0 => Sampling::greedy(),
        1 => Sampling::at(0.9, 5),
        2 => Sampling { top_k: Some(20), ..Sampling::at(1.3, 6) },
        _ => Sampling { top_p: Some(0.8), ..Sampling::at(1.0, 7) },
    };
    let allowed_vocab = index.is_multiple_of(3).then_some(VOCAB - 2);
    Options { sampling, max_tokens, eos: None, allowed_vocab, rng_stream: index }
}

/// Runs the engine until it is idle, and collects the tokens of each sequence.
fn finish(engine: &mut Engine, written: &mut HashMap<SequenceId, Vec<u32>>) {
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            match event {
                Event::Token { id, token } => written.entry(id).or_default().push(token),
                Event::Finished { reason, .. } => assert_ne!(reason, Finish::NotFinite),
            }
        }
    }
}

/// Decodes all requests, `max_sequences` at a time.
fn together(
    model: &LanguageModel,
    max_sequences: usize,
    requests: &[(Vec<u32>, Options)],
    device: &Device,
) -> Vec<Vec<u32>> {
    let limits = Limits { max_sequences, max_tokens: 240 };
    let mut engine = Engine::new(model, limits, device).unwrap();
    let ids: Vec<SequenceId> =
        requests.iter().map(|(prompt, options)| engine.submit(prompt, options).unwrap()).collect();
    let mut written = HashMap::new();
    finish(&mut engine, &mut written);
    ids.iter().map(|id| written.remove(id).unwrap_or_default()).collect()
}

#[test]
fn prompts_of_all_lengths_get_the_tokens_they_get_alone() {
    let device = Device::flex();
    // 33 prompts of 1 to 200 tokens, with 5 to 37 new tokens
    let requests: Vec<(Vec<u32>, Options)> = prompts_of((0..33).map(|i| 1 + i * 199 / 32))
        .into_iter()
        .enumerate()
        .map(|(i, prompt)| (prompt, options(i, 5 + i * 11 % 33)))
        .collect();
    for (name, config) in shapes() {
        let model = &model(&config, &device);
        let all = together(model, 33, &requests, &device);
        let five_at_a_time = together(model, 5, &requests, &device);
        assert!(all == five_at_a_time, "{name}");
        for (i, request) in requests.iter().enumerate() {
            assert_eq!(all[i].len(), request.1.max_tokens);
            let alone = together(model, 1, std::slice::from_ref(request), &device);
            assert_eq!(all[i], alone[0], "{name}, prompt {i}");
        }
    }
}

#[test]
fn with_bf16_weights_they_also_get_the_tokens_they_get_alone() {
    let device = Device::flex();
    let requests: Vec<(Vec<u32>, Options)> = prompts_of((0..60).map(|i| i * 37 % 60))
        .into_iter()
        .enumerate()
        .map(|(i, prompt)| (prompt, options(i, 9)))
        .collect();
    for name in ["prefix", "vanilla"] {
        let model = &model(&shape(name), &device).with_precision(Precision::Bf16Weights);
        let all = together(model, 60, &requests, &device);
        for (i, request) in requests.iter().enumerate() {
            let alone = together(model, 1, std::slice::from_ref(request), &device);
            assert_eq!(all[i], alone[0], "{name}, prompt {i}");
        }
    }
}

#[test]
fn long_prompts_are_prefilled_in_chunks() {
    let device = Device::flex();
    for (name, length) in [("prefix", 2100), ("two embeddings", 1090), ("vanilla", 520)] {
        let config = shape(name);
        let model = model(&config, &device);
        let prompt = &prompts_of([length])[0];
        let limits = Limits { max_sequences: 1, max_tokens: length + 6 };
        let mut engine = Engine::new(&model, limits, &device).unwrap();
        let id = engine.submit(prompt, &options(1, 6)).unwrap();
        let mut written = HashMap::new();
        finish(&mut engine, &mut written);
        let from = (options(1, 6).sampling, 1);
        assert_eq!(written[&id], uncached(&model, prompt, from, 6, &device), "{name}");
    }
}

#[test]
fn random_schedules_give_each_sequence_the_tokens_it_gets_alone() {
    let device = Device::flex();
    for name in ["prefix", "cross-attention", "vanilla"] {
        let config = shape(name);
        let model = model(&config, &device);
        let requests: Vec<(Vec<u32>, Options)> = prompts_of([1, 2, 5, 8, 13, 40])
            .into_iter()
            .enumerate()
            .map(|(i, prompt)| (prompt, options(i, 3 + 5 * i % 17)))
            .collect();
        let answers: Vec<Vec<u32>> = requests
            .iter()
            .map(|request| {
                let request = std::slice::from_ref(request);
                together(&model, 1, request, &device).remove(0)
            })
            .collect();
        let limits = Limits { max_sequences: 3, max_tokens: 60 };
        let mut engine = Engine::new(&model, limits, &device).unwrap();
        for seed in 0..100 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut live: HashMap<SequenceId, (usize, Vec<u32>)> = HashMap::new();
            for _ in 0..20 {
                match random.random_range(0..10) {
                    0..3 => {
                        let which = random.random_range(0..requests.len());
                        let (prompt, options) = &requests[which];
                        let id = engine.submit(prompt, options).unwrap();
                        live.insert(id, (which, Vec::new()));
                    }
                    3 => {
                        if let Some(&id) = live.keys().min() {
                            live.remove(&id);
                            assert!(engine.cancel(id));
                        }
                    }
                    _ => step(&mut engine, &mut live, &answers),
                }
            }
            while !engine.is_idle() {
                step(&mut engine, &mut live, &answers);
            }
            assert!(live.is_empty(), "{name}, schedule {seed}");
            assert_eq!((engine.running(), engine.waiting()), (0, 0));
        }
    }
}

fn step(
    engine: &mut Engine,
    live: &mut HashMap<SequenceId, (usize, Vec<u32>)>,
    answers: &[Vec<u32>],
) {
    for event in engine.step().unwrap() {
        match event {
            Event::Token { id, token } => live.get_mut(&id).unwrap().1.push(token),
            Event::Finished { id, reason } => {
                let (which, written) = live.remove(&id).unwrap();
                assert_eq!((&written, reason), (&answers[which], Finish::Length));
            }
        }
    }
}

/// The work of all requests, which does not depend on the schedule.
fn expected_work(config: &ModelConfig, requests: &[(Vec<u32>, Options)]) -> Work {
    let mut work = Work::default();
    for (prompt, options) in requests {
        let (p, n) = (prompt.len(), options.max_tokens);
        work.logits += n;
        let ModelConfig::Block(config) = config else {
            // the last token is never an input
            work.token.run += p + n - 1;
            work.token.finished += n;
            continue;
        };
        let (l, e) = (config.block_length, config.embeddings_per_block());
        let (known, written) = (p.div_ceil(l), n.div_ceil(l));
        // the last block is never an input; only the last block of the prompt needs an output
        work.block.run += e * (known + written - 1);
        work.block.finished += e * written;
        work.expanded += e * written;
        let prefix = e * config.expansion();
        // the prefix of each block, and every token but the last of each block
        work.token.run += written * prefix + n - written;
        work.token.finished += n;
    }
    work
}

#[test]
fn nothing_is_computed_twice_or_for_nothing() {
    let device = Device::flex();
    for name in ["prefix", "two embeddings", "length 1", "vanilla"] {
        let config = shape(name);
        let model = model(&config, &device);
        let requests: Vec<(Vec<u32>, Options)> = prompts_of([1, 4, 7, 20, 33, 33])
            .into_iter()
            .zip([1, 5, 8, 14, 2, 4])
            .map(|(prompt, max_tokens)| (prompt, options(0, max_tokens)))
            .collect();
        let limits = Limits { max_sequences: 4, max_tokens: 40 };
        let mut engine = Engine::new(&model, limits, &device).unwrap();
        for (prompt, options) in &requests {
            engine.submit(prompt, options).unwrap();
        }
        finish(&mut engine, &mut HashMap::new());
        assert_eq!(engine.work(), expected_work(&config, &requests), "{name}");
        // cancelled sequences and those without new tokens cost nothing
        let id = engine.submit(&[5, 6], &options(0, 9)).unwrap();
        engine.submit(&[5, 6], &options(0, 0)).unwrap();
        assert!(engine.cancel(id));
        finish(&mut engine, &mut HashMap::new());
        assert_eq!(engine.work(), expected_work(&config, &requests), "{name}");
    }
}

#[test]
fn a_filled_context_is_not_computed() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let config = shape(name);
        let model = model(&config, &device);
        let limits = Limits { max_sequences: 2, max_tokens: 1020 };
        let mut engine = Engine::new(&model, limits, &device).unwrap();
        engine.fill_random();
        let asked = options(0, 8);
        let ids = [0, 1000].map(|context| engine.submit_after(context, &[5, 6], &asked).unwrap());
        let mut written = HashMap::new();
        finish(&mut engine, &mut written);
        assert_eq!(ids.map(|id| written[&id].len()), [8, 8]);
        let request = (vec![5, 6], asked);
        assert_eq!(engine.work(), expected_work(&config, &[request.clone(), request.clone()]));
        let alone = together(&model, 1, &[request], &device);
        // the first sequence does not attend to the random context, the second does
        assert_eq!(written[&ids[0]], alone[0], "{name}");
        assert_ne!(written[&ids[1]], alone[0], "{name}");
    }
}

#[test]
fn tokens_are_reported_at_once_and_free_slots_are_reused() {
    let device = Device::flex();
    let config = shape("prefix");
    let model = model(&config, &device);
    let limits = Limits { max_sequences: 2, max_tokens: 40 };
    let mut engine = Engine::new(&model, limits, &device).unwrap();
    let ids: Vec<SequenceId> = [6, 3, 2, 9]
        .iter()
        .map(|&max_tokens| engine.submit(&[7, 8, 9], &options(0, max_tokens)).unwrap())
        .collect();
    assert_eq!((engine.running(), engine.waiting()), (0, 4));
    let mut seen = Vec::new();
    let mut steps = |engine: &mut Engine, count: usize| {
        for _ in 0..count {
            let ids = engine.step().unwrap().into_iter().filter_map(|event| match event {
                Event::Token { id, .. } => Some(id),
                Event::Finished { .. } => None,
            });
            seen.push(ids.collect::<Vec<_>>());
        }
    };
    steps(&mut engine, 3);
    // the second sequence ended inside its block, and the third starts with the next block
    assert_eq!((engine.running(), engine.waiting()), (1, 2));
    steps(&mut engine, 2);
    assert_eq!((engine.running(), engine.waiting()), (2, 1));
    assert!(engine.cancel(ids[0]));
    assert!(!engine.cancel(ids[0]) && !engine.cancel(ids[1]));
    assert_eq!((engine.running(), engine.waiting()), (1, 1));
    steps(&mut engine, 2);
    let [a, b, c, d] = ids[..] else { panic!("four") };
    // no sequence was running after the sixth step, so the last one started at once
    let expected = [vec![a, b], vec![a, b], vec![a, b], vec![a], vec![a, c], vec![c], vec![d]];
    assert_eq!(seen, expected);
}

#[test]
fn eos_is_reported_as_the_end_and_not_as_a_token() {
    let device = Device::flex();
    let config = shape("vanilla");
    let model = model(&config, &device);
    let limits = Limits { max_sequences: 1, max_tokens: 20 };
    let mut engine = Engine::new(&model, limits, &device).unwrap();
    let free = options(1, 8);
    let id = engine.submit(&[5], &free).unwrap();
    let mut written = HashMap::new();
    finish(&mut engine, &mut written);
    let eos = written[&id][3];
    let end = written[&id].iter().position(|&token| token == eos).unwrap();
    let id = engine.submit(&[5], &Options { eos: Some(eos), ..free }).unwrap();
    let mut events = Vec::new();
    while !engine.is_idle() {
        events.extend(engine.step().unwrap());
    }
    assert_eq!(events.len(), end + 1);
    assert_eq!(events[end], Event::Finished { id, reason: Finish::Eos });
}

#[test]
fn sequences_without_room_are_refused() {
    let device = Device::flex();
    let config = shape("prefix");
    let model = model(&config, &device);
    let new = |max_sequences, max_tokens| {
        Engine::new(&model, Limits { max_sequences, max_tokens }, &device)
    };
    assert!(matches!(new(0, 10).unwrap_err(), GenerationError::NoRoom));
    assert!(matches!(new(1, 1).unwrap_err(), GenerationError::NoRoom));
    let mut engine = new(1, 10).unwrap();
    let error = engine.submit(&[5; 8], &Options { rng_stream: 4, ..options(0, 3) }).unwrap_err();
    let GenerationError::TooLong { prompt: 4, tokens: 11, limit: 10 } = error else {
        panic!("{error}");
    };
    let error = engine.submit(&[5; 8], &options(0, usize::MAX)).unwrap_err();
    assert!(matches!(error, GenerationError::TooLong { .. }));
    let error = engine.submit_after(8, &[5], &options(0, 2)).unwrap_err();
    assert!(matches!(error, GenerationError::TooLong { tokens: 11, .. }));
    let error = engine.submit(&[5, VOCAB as u32], &options(2, 1)).unwrap_err();
    assert!(matches!(error, GenerationError::PromptId { prompt: 2, id: 260, vocab: VOCAB }));
    assert!(engine.is_idle());
    // sequences that just fit are decoded to their ends
    for length in 1..10 {
        engine.submit(&vec![5; length], &options(0, 10 - length)).unwrap();
    }
    let mut written = HashMap::new();
    finish(&mut engine, &mut written);
    assert_eq!(written.values().map(Vec::len).sum::<usize>(), 45);
}

#[test]
fn damaged_weights_end_their_sequences_only() {
    let device = Device::flex();
    let config = shape("vanilla");
    let damaged = damaged(model(&config, &device));
    let limits = Limits { max_sequences: 2, max_tokens: 20 };
    let mut engine = Engine::new(&damaged, limits, &device).unwrap();
    // one row of the token table is NaN
    let bad = engine.submit(&[DAMAGED], &options(0, 4)).unwrap();
    let good = engine.submit(&[5], &Options { allowed_vocab: Some(3), ..options(0, 4) }).unwrap();
    let mut ends = HashMap::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Finished { id, reason } = event {
                ends.insert(id, reason);
            }
        }
    }
    assert_eq!(ends[&bad], Finish::NotFinite);
    assert_eq!(ends[&good], Finish::Length);
    let work = engine.work();
    assert_eq!(work.block, PositionCounts::default());
}
