//! Prefixes and choices: the tokens are those of each sequence alone, and blocks are run once.

use std::collections::HashMap;

use block_transformer_family::Family;
use block_transformer_generation::{
    Engine, Event, Finish, GenerationError, Limits, Options, PrefixCounts, SequenceId, Work,
};
use block_transformer_testing::{VOCAB, model, prompts_of, shape, shapes};
use block_transformer_zoo::{LanguageModel, ModelConfig, preset};
use burn::tensor::Device;

use super::{engine, finish, on_flex, options};

/// A prefix, a prompt and the options of its choices.
pub(super) type Request = (Vec<u32>, Vec<u32>, Vec<Options>);

/// The tokens of each choice, which runs everything itself.
pub(super) fn alone(model: &LanguageModel, request: &Request) -> Vec<Vec<u32>> {
    alone_in(|| engine(model, 1, 240), request)
}

/// The tokens of each choice, which has an engine of its own.
pub(super) fn alone_in(
    new: impl Fn() -> Engine,
    (prefix, prompt, choices): &Request,
) -> Vec<Vec<u32>> {
    let one = |options: &Options| {
        let (mut engine, options) = (new(), std::slice::from_ref(options));
        let id = engine.submit_choices(prefix, prompt, options).unwrap()[0];
        assert_eq!(engine.prefixes().saved_positions, 0);
        finish(&mut engine).remove(&id).unwrap().0
    };
    choices.iter().map(one).collect()
}

pub(super) fn submit(engine: &mut Engine, (prefix, prompt, choices): &Request) -> Vec<SequenceId> {
    engine.submit_choices(prefix, prompt, choices).unwrap()
}

/// Options of `count` choices, all different.
fn choices(count: usize) -> Vec<Options> {
    (0..count).map(|i| options(i, 5 + 3 * i % 13)).collect()
}

pub(super) fn tokens(length: usize) -> Vec<u32> {
    prompts_of([length]).remove(0)
}

#[test]
fn choices_get_the_tokens_that_they_get_alone_after_one_prefill() {
    for (name, config) in shapes() {
        let model = model(&config, &Device::flex());
        for (prompt, count) in [(30, 8), (1, 3), (0, 4)] {
            let request = (Vec::new(), tokens(prompt), choices(count));
            let expected = alone(&model, &request);
            let plain = |options: &Options| {
                let mut engine = engine(&model, 1, 240);
                engine.submit(&request.1, options).unwrap();
                let sequence = finish(&mut engine).into_values().next().unwrap();
                (sequence.0, engine.work())
            };
            let plain: Vec<(Vec<u32>, Work)> = request.2.iter().map(plain).collect();
            for slots in [count, 3, 1] {
                let mut engine = engine(&model, slots, 240);
                let ids = submit(&mut engine, &request);
                let mut sequences = finish(&mut engine);
                let what = format!("{name}, {prompt} tokens, {slots} slots");
                for (i, id) in ids.iter().enumerate() {
                    let (tokens, end) = sequences.remove(id).unwrap();
                    assert_eq!(end, Some(Finish::Length));
                    assert_eq!(tokens, expected[i], "{what}, choice {i}");
                    assert_eq!(tokens, plain[i].0, "{what}, choice {i}");
                }
                let (e, l) = match &config {
                    ModelConfig::Block(config) => {
                        (config.embeddings_per_block(), config.block_length)
                    }
                    _ => (1, 1),
                };
                // all but one run no position of the prompt
                let saved = (count - 1) * e * prompt.max(1).div_ceil(l);
                let (run, all) = (positions(engine.work()), plain.iter().map(|of| positions(of.1)));
                assert_eq!(run + saved, all.sum::<usize>(), "{what}");
                let counts = engine.prefixes();
                let forks = count - 1;
                let expected =
                    PrefixCounts { forks, saved_positions: saved, ..PrefixCounts::default() };
                assert_eq!(counts, expected, "{what}");
            }
        }
    }
}

/// Positions of the context stack that were run, and those of the token decoder.
fn positions(work: Work) -> usize {
    work.block.run + work.token.run
}

#[test]
fn choices_go_on_when_the_first_ones_end_or_are_cancelled() {
    for name in ["prefix", "vanilla"] {
        let model = on_flex(name);
        let mut request = (tokens(6), tokens(21), choices(7));
        // the first one ends at once
        request.2[0].max_tokens = 1;
        let expected = alone(&model, &request);
        for slots in [1, 2, 5] {
            for (cancelled, after) in [(0, 0), (0, 2), (1, 3), (2, 1), (3, 4), (1, 6)] {
                // prompts in pieces, so that a prefill can be cancelled
                let mut engine = engine(&model, slots, 240).with_prefill_budget(4);
                let ahead = (Vec::new(), vec![9, 8], choices(1));
                submit(&mut engine, &ahead);
                let ids = submit(&mut engine, &request);
                let mut found: HashMap<SequenceId, Vec<u32>> = HashMap::new();
                let mut step = 0;
                while !engine.is_idle() {
                    if step == after {
                        (0..=cancelled).for_each(|i| _ = engine.cancel(ids[i]));
                    }
                    step += 1;
                    for event in engine.step().unwrap() {
                        if let Event::Token { id, token, .. } = event {
                            found.entry(id).or_default().push(token);
                        }
                    }
                }
                for (i, id) in ids.iter().enumerate().skip(cancelled + 1) {
                    let what = format!("{name}, {slots} slots, {cancelled} after {after}, {i}");
                    assert_eq!(found[id], expected[i], "{what}");
                }
            }
        }
    }
}

#[test]
fn prefixes_are_kept_within_their_budget_and_the_least_recently_used_goes_first() {
    for (name, blocks) in [("prefix", [3, 3, 5, 4]), ("vanilla", [9, 10, 18, 16])] {
        let model = on_flex(name);
        // two layers of width 32, keys and values in f32; and states
        let bytes = |blocks: u64| blocks * 2 * 2 * 32 * 4 + 32 * 4;
        let prefixes = [9, 10, 18, 16].map(tokens);
        let of = blocks.map(bytes);
        let budget = of[0] + of[1] + of[2];
        let mut engine = engine(&model, 2, 240).with_prefixes(budget);
        let mut run = |which: usize| {
            let request = (prefixes[which].clone(), tokens(5), choices(1));
            let id = submit(&mut engine, &request)[0];
            assert_eq!(finish(&mut engine)[&id].0, alone(&model, &request)[0]);
            let PrefixCounts { hits, misses, entries, bytes, evictions, budget: of, .. } =
                engine.prefixes();
            assert_eq!(of, budget);
            ((hits, misses, evictions), entries, bytes)
        };
        assert_eq!(run(0), ((0, 1, 0), 1, of[0]));
        assert_eq!(run(1), ((0, 2, 0), 2, of[0] + of[1]));
        assert_eq!(run(2), ((0, 3, 0), 3, budget));
        assert_eq!(run(0), ((1, 3, 0), 3, budget));
        // the fourth one needs the room of the second and the third
        assert_eq!(run(3), ((1, 4, 2), 2, of[0] + of[3]));
        assert_eq!(run(0), ((2, 4, 2), 2, of[0] + of[3]));
        let saved = engine.prefixes().saved_positions;
        assert_eq!(saved, 2 * blocks[0] as usize, "{name}");
        // one that is larger than the budget is run, and nothing is given up for it
        let large = (tokens(100), tokens(5), choices(1));
        let id = submit(&mut engine, &large)[0];
        assert_eq!(finish(&mut engine)[&id].0, alone(&model, &large)[0]);
        let PrefixCounts { misses, entries, evictions, .. } = engine.prefixes();
        assert_eq!((misses, entries, evictions), (5, 2, 2));
        // a smaller budget
        let engine = engine.with_prefixes(of[0]);
        let PrefixCounts { entries, bytes, evictions, .. } = engine.prefixes();
        assert_eq!((entries, bytes, evictions), (1, of[0], 3), "{name}");
        let engine = engine.with_prefixes(0);
        assert_eq!((engine.prefixes().entries, engine.prefixes().bytes), (0, 0));
    }
}

#[test]
fn a_prefix_is_run_once_for_sequences_that_come_together() {
    let model = on_flex("two embeddings");
    let requests: Vec<Request> =
        (0..5).map(|i| (tokens(40), tokens(i), vec![options(i, 6)])).collect();
    // without memory, only sequences that have a slot at the same time share
    for (slots, budget, misses) in [(5, 0, 1), (5, 1 << 20, 1), (2, 1 << 20, 1), (1, 0, 5)] {
        let mut engine = engine(&model, slots, 240).with_prefixes(budget);
        let ids: Vec<SequenceId> =
            requests.iter().map(|request| submit(&mut engine, request)[0]).collect();
        let sequences = finish(&mut engine);
        for (request, id) in requests.iter().zip(&ids) {
            assert_eq!(sequences[id].0, alone(&model, request)[0], "{slots}, {budget}");
        }
        let counts = engine.prefixes();
        assert_eq!((counts.misses, counts.hits), (misses, 5 - misses), "{slots}, {budget}");
        // 10 blocks with two embeddings
        assert_eq!(counts.saved_positions, (5 - misses) * 20);
        assert_eq!(counts.entries, usize::from(budget > 0));
    }
}

#[test]
fn a_prefix_stays_while_a_sequence_waits_for_it() {
    let model = on_flex("prefix");
    let bytes = |blocks: u64| blocks * 2 * 2 * 32 * 4 + 32 * 4;
    let request = |prefix: usize, count: usize| (tokens(prefix), tokens(3), choices(count));
    // room for one prefix of 10 blocks
    let mut engine = engine(&model, 1, 240).with_prefixes(bytes(10));
    submit(&mut engine, &request(40, 1));
    finish(&mut engine);
    // another prefix comes first, and the last sequence needs the one that is kept
    let requests = [request(39, 1), request(40, 1)];
    let ids = requests.each_ref().map(|request| submit(&mut engine, request)[0]);
    let sequences = finish(&mut engine);
    for (request, id) in requests.iter().zip(ids) {
        assert_eq!(sequences[&id].0, alone(&model, request)[0]);
    }
    let PrefixCounts { hits, misses, evictions, entries, .. } = engine.prefixes();
    assert_eq!((hits, misses, evictions, entries), (1, 2, 0, 1));
    // a sequence that is cancelled needs nothing
    let ids = [request(39, 1), request(40, 1)].map(|request| submit(&mut engine, &request)[0]);
    assert!(engine.cancel(ids[1]));
    finish(&mut engine);
    let PrefixCounts { hits, misses, evictions, entries, .. } = engine.prefixes();
    assert_eq!((hits, misses, evictions, entries), (1, 3, 1, 1));
}

#[test]
fn prefixes_count_as_tokens_and_are_checked() {
    let model = on_flex("prefix");
    let mut engine = engine(&model, 2, 20).with_prefixes(1 << 20);
    let one = |max_tokens| vec![Options { rng_stream: 7, ..options(0, max_tokens) }];
    // two blocks of prefix, and 5 + 7 tokens
    let id = engine.submit_choices(&[5; 5], &[6; 5], &one(7)).unwrap()[0];
    assert_eq!(finish(&mut engine)[&id].0.len(), 7);
    let error = engine.submit_choices(&[5; 5], &[6; 5], &one(8)).unwrap_err();
    let GenerationError::TooLong { prompt: 7, tokens: 21, limit: 20 } = error else {
        panic!("{error}");
    };
    let id = engine.submit_choices(&[5; 5], &[], &one(12)).unwrap()[0];
    assert_eq!(finish(&mut engine)[&id].0.len(), 12);
    for (prefix, prompt, count) in [(5, 0, 13), (21, 0, 0), (20, 0, 1), (17, 1, 0)] {
        let error =
            engine.submit_choices(&vec![5; prefix], &vec![5; prompt], &one(count)).unwrap_err();
        assert!(matches!(error, GenerationError::TooLong { .. }), "{prefix}, {prompt}, {count}");
    }
    // nothing is queued if one choice is refused
    let two = [one(3), one(8)].concat();
    engine.submit_choices(&[5; 5], &[6; 5], &two).unwrap_err();
    for (prefix, prompt) in [(vec![VOCAB as u32], vec![5]), (vec![5], vec![VOCAB as u32])] {
        let error = engine.submit_choices(&prefix, &prompt, &one(2)).unwrap_err();
        assert!(matches!(error, GenerationError::PromptId { prompt: 7, .. }), "{error}");
    }
    assert!(engine.is_idle());
    assert_eq!(engine.submit_choices(&[5], &[5], &[]).unwrap(), []);
    assert!(engine.is_idle());
    // choices without tokens end at once, and the others share
    let ids = engine.submit_choices(&[], &[6; 5], &[one(0), one(3), one(3)].concat()).unwrap();
    let sequences = finish(&mut engine);
    assert_eq!(ids.iter().map(|id| sequences[id].0.len()).collect::<Vec<_>>(), [0, 3, 3]);
    assert_eq!(engine.prefixes().forks, 1);
}

#[test]
fn the_number_of_invariant_sequences_is_that_of_rows_by_sequence() {
    // 191 rows of a product; E r or one position, E embeddings, or the positions of an encoder
    let expected = [
        ("prefix", 191 / 2),
        ("summation", 191),
        ("cross-attention", 191 / 4),
        ("cls, summation", 191 / 6),
        ("roberta", 191 / 4),
        ("two embeddings", 191 / 2),
        ("two embeddings, summation", 191 / 2),
        ("unequal widths", 191 / 6),
        ("length 1", 191),
        ("vanilla", 191),
        ("vanilla, sequential", 191),
    ];
    assert_eq!(
        expected.map(|(name, _)| name).to_vec(),
        shapes().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    for (name, sequences) in expected {
        let model = on_flex(name);
        assert_eq!(engine(&model, 1, 9).invariant_sequences(), Some(sequences), "{name}");
        // so many sequences together get the tokens that they get alone
        let requests: Vec<Request> = (0..sequences)
            .map(|i| (Vec::new(), tokens(1 + i % 9), vec![options(i, 5 + i % 3)]))
            .collect();
        let mut engine = engine(&model, sequences, 30);
        let ids: Vec<SequenceId> =
            requests.iter().map(|request| submit(&mut engine, request)[0]).collect();
        let found = finish(&mut engine);
        for (request, id) in requests.iter().zip(&ids) {
            assert_eq!(found[id].0, alone(&model, request)[0], "{name}");
        }
    }
    // a prepared model has no limit
    let prepared = preset("debug-block").unwrap().model.init(0, &Device::flex()).prepared();
    assert_eq!(engine(&prepared, 1, 9).invariant_sequences(), Some(usize::MAX));
    // a device that rounds differently
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let ndarray = Device::ndarray();
    let limits = Limits { max_sequences: 1, max_tokens: 9 };
    let engine = Engine::new(&model(&shape("prefix"), &ndarray), limits, &ndarray).unwrap();
    assert_eq!(engine.invariant_sequences(), None);
}
