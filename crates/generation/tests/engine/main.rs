//! The engine: other sequences do not change the tokens of a sequence, nothing is computed
//! needlessly, and requests that do not fit are refused.

mod cached;
mod logprobs;
mod prefixes;
mod schedules;
mod speculation;

use std::collections::HashMap;

use block_transformer_family::{Family, Precision};
use block_transformer_generation::{
    Engine, Event, Finish, GenerationError, Limits, Options, PositionCounts, Sampling, SequenceId,
    Work, generate,
};
use block_transformer_testing::{DAMAGED, VOCAB, damaged, model, prompts_of, shape, shapes};
use block_transformer_zoo::{LanguageModel, ModelConfig, preset};
use burn::tensor::Device;

use cached::go_on;

/// A prompt with its options.
type Submission = (Vec<u32>, Options);

/// Options that differ in every field.
fn options(index: usize, max_tokens: usize) -> Options {
    let sampling = match index % 4 {
        0 => Sampling::greedy(),
        1 => Sampling::at(0.9, 5),
        2 => Sampling { top_k: Some(20), ..Sampling::at(1.3, 6) },
        _ => Sampling { top_p: Some(0.8), ..Sampling::at(1.0, 7) },
    };
    let allowed_vocab = index.is_multiple_of(3).then_some(VOCAB - 2);
    let rng_stream = index;
    Options { sampling, max_tokens, eos: None, allowed_vocab, rng_stream, ..Options::default() }
}

/// Prompts of these lengths, with the number of their new tokens.
fn with_options(lengths: impl IntoIterator<Item = (usize, usize)>) -> Vec<Submission> {
    let (lengths, counts): (Vec<usize>, Vec<usize>) = lengths.into_iter().unzip();
    let options = counts.into_iter().enumerate().map(|(i, count)| options(i, count));
    prompts_of(lengths).into_iter().zip(options).collect()
}

/// The model of a shape on flex.
fn on_flex(name: &str) -> LanguageModel {
    model(&shape(name), &Device::flex())
}

fn engine(model: &LanguageModel, max_sequences: usize, max_tokens: usize) -> Engine {
    Engine::new(model, Limits { max_sequences, max_tokens }, &Device::flex()).unwrap()
}

/// Runs the engine until it is idle, and returns the tokens and the end of each sequence.
fn finish(engine: &mut Engine) -> HashMap<SequenceId, (Vec<u32>, Option<Finish>)> {
    let mut sequences: HashMap<_, (Vec<u32>, _)> = HashMap::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            let (tokens, end) = sequences.entry(event.id()).or_default();
            assert_eq!(*end, None, "an event after the last one");
            match event {
                Event::Token { token, .. } => tokens.push(token),
                Event::Finished { reason, .. } => *end = Some(reason),
            }
        }
    }
    sequences
}

/// Decodes all prompts, `max_sequences` at a time.
fn together(model: &LanguageModel, max_sequences: usize, prompts: &[Submission]) -> Vec<Vec<u32>> {
    let mut engine = engine(model, max_sequences, 240);
    let submit = |(prompt, options): &Submission| engine.submit(prompt, options).unwrap();
    let ids: Vec<SequenceId> = prompts.iter().map(submit).collect();
    let mut sequences = finish(&mut engine);
    let tokens = |id| {
        let (tokens, end) = sequences.remove(id).unwrap();
        assert_eq!(end, Some(Finish::Length));
        tokens
    };
    ids.iter().map(tokens).collect()
}

fn alone(model: &LanguageModel, prompt: &Submission) -> Vec<u32> {
    together(model, 1, std::slice::from_ref(prompt)).remove(0)
}

#[test]
fn prompts_of_all_lengths_get_the_tokens_they_get_alone() {
    // 33 prompts of 1 to 200 tokens, with 5 to 37 new tokens
    let prompts = with_options((0..33).map(|i| (1 + i * 199 / 32, 5 + i * 11 % 33)));
    for (name, config) in shapes() {
        let model = &model(&config, &Device::flex());
        let all = together(model, 33, &prompts);
        assert!(all == together(model, 5, &prompts), "{name}");
        for (i, prompt) in prompts.iter().enumerate() {
            assert_eq!(all[i].len(), prompt.1.max_tokens);
            assert_eq!(all[i], alone(model, prompt), "{name}, prompt {i}");
        }
    }
}

#[test]
fn with_narrow_weights_they_also_get_the_tokens_they_get_alone() {
    let prompts = with_options((0..60).map(|i| (i * 37 % 60, 9)));
    let narrow = [Precision::Bf16Weights, Precision::Int8Weights];
    for (name, precision) in [("prefix", narrow[0]), ("prefix", narrow[1]), ("vanilla", narrow[1])]
    {
        let model = &on_flex(name).with_precision(precision);
        for (i, tokens) in together(model, 60, &prompts).iter().enumerate() {
            assert_eq!(*tokens, alone(model, &prompts[i]), "{name}, prompt {i}");
        }
    }
}

#[test]
fn prepared_models_have_no_bound_on_rows() {
    // of equal length, so that prompts go through together; 300 sequences have 600 prefix vectors
    let prompts = with_options((0..300).map(|_| (9, 6)));
    for name in ["debug-block", "debug-vanilla"] {
        let model = preset(name).unwrap().model.init(0, &Device::flex());
        assert_eq!(model.batch_invariant_rows(), Some(191));
        let model = &model.prepared();
        assert_eq!(model.batch_invariant_rows(), Some(usize::MAX));
        let all = together(model, 300, &prompts);
        for i in (0..300).step_by(29) {
            assert_eq!(all[i], alone(model, &prompts[i]), "{name}, prompt {i}");
        }
    }
    // a vocabulary of 260 is no multiple of 16
    assert_eq!(on_flex("prefix").prepared().batch_invariant_rows(), Some(191));
}

/// The work of all prompts, which does not depend on the schedule.
fn expected_work(config: &ModelConfig, prompts: &[Submission]) -> Work {
    let mut work = Work::default();
    for (prompt, options) in prompts {
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
    let prompts = with_options([(1, 1), (4, 5), (7, 8), (20, 14), (33, 2), (33, 4)]);
    for name in ["prefix", "two embeddings", "length 1", "vanilla"] {
        let mut engine = engine(&on_flex(name), 4, 40);
        for (prompt, options) in &prompts {
            engine.submit(prompt, options).unwrap();
        }
        finish(&mut engine);
        assert_eq!(engine.work(), expected_work(&shape(name), &prompts), "{name}");
        // cancelled sequences and those without new tokens cost nothing
        let id = engine.submit(&[5, 6], &options(0, 9)).unwrap();
        engine.submit(&[5, 6], &options(0, 0)).unwrap();
        assert!(engine.cancel(id));
        finish(&mut engine);
        assert_eq!(engine.work(), expected_work(&shape(name), &prompts), "{name}");
    }
}

#[test]
fn a_filled_context_is_not_computed() {
    for name in ["prefix", "vanilla"] {
        let model = on_flex(name);
        let mut engine = engine(&model, 2, 1020);
        engine.fill_random();
        let prompt = (vec![5, 6], options(0, 8));
        let submit = |context| engine.submit_after(context, &prompt.0, &prompt.1).unwrap();
        let ids = [0, 1000].map(submit);
        let sequences = finish(&mut engine);
        let [near, far] = ids.map(|id| &sequences[&id].0);
        assert_eq!((near.len(), far.len()), (8, 8));
        assert_eq!(engine.work(), expected_work(&shape(name), &[prompt.clone(), prompt.clone()]));
        // the first sequence does not attend to the random context, the second does
        let alone = alone(&model, &prompt);
        assert_eq!(*near, alone, "{name}");
        assert_ne!(*far, alone, "{name}");
    }
}

#[test]
fn tokens_are_reported_at_once_and_free_slots_are_reused() {
    let mut engine = engine(&on_flex("prefix"), 2, 40);
    let ids = [6, 3, 2, 9].map(|count| engine.submit(&[7, 8, 9], &options(0, count)).unwrap());
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
    let [a, b, c, d] = ids;
    // no sequence was running after the sixth step, so the last one started at once
    let expected = [vec![a, b], vec![a, b], vec![a, b], vec![a], vec![a, c], vec![c], vec![d]];
    assert_eq!(seen, expected);
}

#[test]
fn a_sequence_ends_before_eos_and_the_others_continue() {
    for (name, config) in shapes() {
        let model = &model(&config, &Device::flex());
        let mut prompts = with_options((0..6).map(|i| (i, 10)));
        let whole = together(model, 6, &prompts);
        // a token that one of the sequences contains becomes EOS
        let eos = Some(whole[3][5]);
        let mut engine = engine(model, 6, 20);
        let ids: Vec<SequenceId> = prompts
            .iter_mut()
            .map(|(prompt, options)| {
                options.eos = eos;
                engine.submit(prompt, options).unwrap()
            })
            .collect();
        let sequences = finish(&mut engine);
        for (id, whole) in ids.iter().zip(&whole) {
            let end = whole.iter().position(|token| Some(*token) == eos);
            let reason = if end.is_some() { Finish::Eos } else { Finish::Length };
            let expected = whole[..end.unwrap_or(10)].to_vec();
            assert_eq!(sequences[id], (expected, Some(reason)), "{name}");
        }
    }
}

#[test]
fn sequences_without_room_are_refused() {
    let (device, model) = (Device::flex(), on_flex("prefix"));
    for (max_sequences, max_tokens) in [(0, 10), (1, 1)] {
        let error = Engine::new(&model, Limits { max_sequences, max_tokens }, &device).unwrap_err();
        assert!(matches!(error, GenerationError::NoRoom));
    }
    let mut engine = engine(&model, 1, 10);
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
    assert_eq!(finish(&mut engine).values().map(|(tokens, _)| tokens.len()).sum::<usize>(), 45);

    let refused = |prompts: &[Vec<u32>], options: &Options| {
        generate(&model, prompts, options, &device, go_on).unwrap_err()
    };
    let options = Options::default();
    let error = refused(&[vec![5], vec![VOCAB as u32]], &options);
    assert!(matches!(error, GenerationError::PromptId { prompt: 1, id: 260, vocab: VOCAB }));
    let error = refused(&[vec![5]], &Options { max_tokens: usize::MAX, ..options.clone() });
    assert!(matches!(error, GenerationError::MaxTokens(_)));
    let error = refused(&[vec![5]], &Options { allowed_vocab: Some(0), ..options });
    assert!(matches!(error, GenerationError::NothingAllowed));
}

#[test]
fn damaged_weights_end_their_sequences_only() {
    let mut engine = engine(&damaged(on_flex("vanilla")), 2, 20);
    // one row of the token table is NaN
    let bad = engine.submit(&[DAMAGED], &options(0, 4)).unwrap();
    let good = engine.submit(&[5], &Options { allowed_vocab: Some(3), ..options(0, 4) }).unwrap();
    let sequences = finish(&mut engine);
    assert_eq!(sequences[&bad].1, Some(Finish::NotFinite));
    assert_eq!(sequences[&good].1, Some(Finish::Length));
    assert_eq!(engine.work().block, PositionCounts::default());
}
