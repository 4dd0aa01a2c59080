//! Guessed tokens do not change the tokens of a sequence.

use std::sync::Arc;

use block_transformer_family::{
    BlockRow, CacheFormat, CacheRoom, FamilyConfig, PaddingMask, Precision,
};
use block_transformer_generation::{
    Engine, GenerationError, Limits, NGrams, Options, Sampling, SequenceId, Speculate,
    SpeculationCounts,
};
use block_transformer_layers::{Positions, int_tensor};
use block_transformer_testing::{DAMAGED, VOCAB, damaged, model, shape, shapes};
use block_transformer_zoo::{Family, LanguageModel};
use burn::tensor::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::schedules::{random_schedule, submit_of};
use super::{Finish, Submission, finish, on_flex};

const MODES: [Speculate; 5] = [
    Speculate::Auto,
    Speculate::Tokens(1),
    Speculate::Tokens(3),
    Speculate::Tokens(6),
    Speculate::Tokens(40),
];

/// Prompts of a few tokens that repeat themselves, with all kinds of sampling. Little randomness lets many
/// continuations repeat themselves too.
fn repetitive(count: usize, seed: u64) -> Vec<Submission> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut one = |index: usize| {
        let kinds = random.random_range(2..6);
        let length = random.random_range(0..30);
        let prompt = (0..length).map(|_| 10 + random.random_range(0..kinds)).collect();
        let sampling = match index % 4 {
            0 | 1 => Sampling::greedy(),
            2 => Sampling { top_k: Some(2), ..Sampling::at(0.3, 5) },
            _ => Sampling { top_p: Some(0.5), ..Sampling::at(0.7, 6) },
        };
        let allowed_vocab = index.is_multiple_of(3).then_some(VOCAB - 2);
        let eos = random.random_bool(0.3).then(|| random.random_range(0..VOCAB as u32));
        let max_tokens = random.random_range(0..60);
        let rng_stream = index;
        let options =
            Options { sampling, max_tokens, eos, allowed_vocab, rng_stream, ..Options::default() };
        (prompt, options)
    };
    (0..count).map(&mut one).collect()
}

type Decoded = Vec<(Vec<u32>, Option<Finish>)>;

/// Decodes all prompts, `max_sequences` at a time.
fn decode(
    model: &LanguageModel,
    (speculate, max_sequences, cache): (Speculate, usize, CacheFormat),
    prompts: &[Submission],
) -> (Decoded, SpeculationCounts) {
    let limits = Limits { max_sequences, max_tokens: 90 };
    let engine = Engine::with_cache(model, limits, cache, &Device::flex()).unwrap();
    let mut engine = engine.with_speculation(speculate).unwrap();
    let submit = |(prompt, options): &Submission| engine.submit(prompt, options).unwrap();
    let ids: Vec<SequenceId> = prompts.iter().map(submit).collect();
    let mut sequences = finish(&mut engine);
    let counts = engine.speculation().unwrap_or_default();
    (ids.iter().map(|id| sequences.remove(id).unwrap()).collect(), counts)
}

#[test]
fn guesses_do_not_change_tokens() {
    let prompts = repetitive(40, 1);
    for (name, config) in shapes().into_iter().filter(|(name, _)| *name != "cross-attention") {
        let model = &model(&config, &Device::flex());
        let f32 = CacheFormat::F32;
        let (plain, none) = decode(model, (Speculate::Off, 40, f32), &prompts);
        assert_eq!(none, SpeculationCounts::default());
        for speculate in MODES {
            for max_sequences in [1, 3, 40] {
                let (ours, counts) = decode(model, (speculate, max_sequences, f32), &prompts);
                for (i, (ours, plain)) in ours.iter().zip(&plain).enumerate() {
                    assert_eq!(ours, plain, "{name}, {speculate:?}, {max_sequences}, prompt {i}");
                }
                let SpeculationCounts { tokens, passes, guessed, right } = counts;
                assert!(tokens >= ours.iter().map(|(tokens, _)| tokens.len()).sum());
                assert!(passes <= tokens && right <= guessed, "{name}, {counts:?}");
                if max_sequences == 1 && speculate != Speculate::Auto {
                    // both kinds of guesses are tested, and right ones save passes
                    assert!(right > 0 && right < guessed && passes < tokens, "{name} {counts:?}");
                }
            }
        }
    }
}

#[test]
fn nor_do_the_n_grams_of_a_corpus() {
    let (prompts, f32) = (repetitive(40, 4), CacheFormat::F32);
    for name in ["prefix", "vanilla"] {
        let model = &on_flex(name);
        let (plain, _) = decode(model, (Speculate::Off, 40, f32), &prompts);
        // what the model writes, so that guesses are right, and other tokens, so that they are wrong
        let written = plain.iter().map(|(tokens, _)| tokens.repeat(4));
        let other = plain.iter().map(|(tokens, _)| {
            let start = &tokens[..tokens.len().min(2)];
            [start, &[11]].concat().repeat(4)
        });
        let documents: Vec<Vec<u32>> = written.chain(other).collect();
        let ngrams = Arc::new(NGrams::count(documents.iter().map(Vec::as_slice), 0, 1000));
        assert!(ngrams.len() > 20);
        for speculate in [Speculate::Auto, Speculate::Tokens(3), Speculate::Tokens(9)] {
            let limits = Limits { max_sequences: 3, max_tokens: 90 };
            let engine = Engine::new(model, limits, &Device::flex()).unwrap();
            let engine = engine.with_speculation(speculate).unwrap();
            let mut engine = engine.with_ngrams(Arc::clone(&ngrams)).unwrap();
            let submit = |(prompt, options): &Submission| engine.submit(prompt, options).unwrap();
            let ids: Vec<SequenceId> = prompts.iter().map(submit).collect();
            let mut sequences = finish(&mut engine);
            for (id, plain) in ids.iter().zip(&plain) {
                assert_eq!(&sequences.remove(id).unwrap(), plain, "{name}, {speculate:?}");
            }
            let SpeculationCounts { guessed, right, .. } = engine.speculation().unwrap();
            assert!(speculate == Speculate::Auto || (right > 0 && right < guessed));
        }
        // ids that the model does not have
        let engine =
            Engine::new(model, Limits { max_sequences: 1, max_tokens: 9 }, &Device::flex());
        let foreign = NGrams::count([&[1, 2, VOCAB as u32].repeat(9)[..]], 0, 10);
        let error = engine.unwrap().with_ngrams(foreign.into()).unwrap_err();
        assert!(matches!(error, GenerationError::NGrams { .. }), "{error}");
    }
}

/// The bits of logits.
fn bits<const D: usize>(logits: Tensor<D>) -> Vec<u32> {
    logits.into_data().iter::<f32>().map(f32::to_bits).collect()
}

#[test]
fn logits_with_guesses_have_the_bits_of_those_one_by_one() {
    let device = Device::flex();
    for (name, precision) in [
        ("prefix", Precision::F32),
        ("summation", Precision::F32),
        ("two embeddings", Precision::Int8),
        ("unequal widths", Precision::Bf16),
        ("length 1", Precision::F32),
        ("vanilla", Precision::F32),
    ] {
        let model = on_flex(name).with_precision(precision).prepared();
        let length = model.config().block_length();
        let decoder = || {
            let room = CacheRoom { slots: 2, blocks: 8, format: precision.cache() };
            model.decoder(room, &device)
        };
        let at = |start| Positions::Slots { slots: vec![1].into(), starts: vec![start].into() };
        let ids = |ids: &[u32]| int_tensor(ids.iter().copied(), &device);
        let text: Vec<u32> = (0..4 * length as u32).map(|i| 5 + i * 7 % 200).collect();
        // blocks 1 to 3 after block 0: one token at a time
        let mut plain = decoder();
        let mut one_by_one = Vec::new();
        for (i, block) in text.chunks(length).enumerate() {
            let block_ids = ids(block).reshape([1, 1, length]);
            let states = plain.append(block_ids, &PaddingMask::full(), &at(i));
            let Some(next) = text.chunks(length).nth(i + 1) else { break };
            one_by_one.extend(bits(plain.start(states)));
            for &id in &next[..length - 1] {
                one_by_one.extend(bits(plain.decode(&[0], ids(&[id]))));
            }
        }
        // all of them in one pass
        let mut guessing = decoder();
        let verifier = guessing.speculative().unwrap();
        let three = ids(&text[..3 * length]).reshape([1, 3, length]);
        let states = verifier.append_all(three, &PaddingMask::full(), &at(0));
        let [_, positions, width] = states.dims();
        let states = states.reshape([3, positions / 3, width]);
        let guessed = (length > 1).then(|| {
            let inputs = text[length..].chunks(length).flat_map(|block| &block[..length - 1]);
            int_tensor(inputs.copied(), &device).reshape([3, length - 1])
        });
        assert_eq!(bits(verifier.start_guessed(states.clone(), guessed)), one_by_one, "{name}");
        if length > 1 {
            // the second and third place after a wrong guess, in the last two of three rows
            let wrong = int_tensor([3; 3], &device).reshape([3, 1]);
            verifier.start_guessed(states, Some(wrong));
            let rows = [1, 2].map(|row| BlockRow { row, place: 0 });
            let inputs = [2, 3].map(|block| &text[block * length..][..2]).concat();
            let logits = verifier.decode_guessed(&rows, ids(&inputs).reshape([2, 2]));
            let vocab = one_by_one.len() / (3 * length);
            let expected = [1, 2].map(|row| {
                let first = (row * length + 1) * vocab;
                one_by_one[first..first + 2 * vocab].to_vec()
            });
            assert_eq!(bits(logits), expected.concat(), "{name}");
        }
    }
}

#[test]
fn speculation_can_begin_while_sequences_run() {
    let model = on_flex("prefix");
    let limits = Limits { max_sequences: 2, max_tokens: 60 };
    let mut engine = Engine::new(&model, limits, &Device::flex()).unwrap();
    let options = Options { eos: None, max_tokens: 40, ..Options::default() };
    let expected =
        decode(&model, (Speculate::Off, 1, CacheFormat::F32), &[(vec![7; 9], options.clone())]);
    let id = engine.submit(&[7; 9], &options).unwrap();
    let first = (0..4).map(|_| engine.step().unwrap().len()).sum::<usize>();
    let mut engine = engine.with_speculation(Speculate::Tokens(6)).unwrap();
    let rest = finish(&mut engine).remove(&id).unwrap().0;
    assert_eq!(rest, expected.0[0].0[first..]);
}

#[test]
fn nor_with_prepared_weights_and_narrow_caches() {
    let prompts = repetitive(24, 2);
    for (name, precision) in [
        ("prefix", Precision::F32),
        ("prefix", Precision::Bf16Weights),
        ("unequal widths", Precision::Int8WeightsBf16Cache),
        ("two embeddings", Precision::Int8),
        ("vanilla", Precision::Int8Cache),
        ("vanilla", Precision::Int8Weights),
    ] {
        let model = &on_flex(name).with_precision(precision).prepared();
        let cache = precision.cache();
        let (plain, _) = decode(model, (Speculate::Off, 5, cache), &prompts);
        for speculate in MODES {
            for max_sequences in [1, 5] {
                let (ours, _) = decode(model, (speculate, max_sequences, cache), &prompts);
                assert!(ours == plain, "{name}, {precision:?}, {speculate:?}, {max_sequences}");
            }
        }
    }
}

#[test]
fn random_schedules_with_guesses_give_the_same_tokens() {
    for (name, speculate) in [
        ("prefix", Speculate::Tokens(7)),
        ("two embeddings, summation", Speculate::Tokens(15)),
        ("vanilla", Speculate::Tokens(5)),
    ] {
        let model = on_flex(name);
        let mut prompts = repetitive(8, 3);
        prompts.iter_mut().for_each(|(_, options)| {
            (options.eos, options.max_tokens) = (None, options.max_tokens % 20 + 1);
        });
        let one = |prompt| decode(&model, (Speculate::Off, 1, CacheFormat::F32), prompt).0;
        let answer = |prompt| vec![one(std::slice::from_ref(prompt)).remove(0).0];
        let answers: Vec<_> = prompts.iter().map(answer).collect();
        let limits = Limits { max_sequences: 3, max_tokens: 60 };
        let engine = Engine::new(&model, limits, &Device::flex()).unwrap();
        let mut engine = engine.with_speculation(speculate).unwrap();
        for seed in 0..60 {
            random_schedule(&mut engine, submit_of(&prompts), &answers, seed);
        }
    }
}

#[test]
fn damaged_weights_end_their_sequences_only() {
    let engine = Engine::new(
        &damaged(on_flex("vanilla")),
        Limits { max_sequences: 2, max_tokens: 20 },
        &Device::flex(),
    );
    let mut engine = engine.unwrap().with_speculation(Speculate::Tokens(4)).unwrap();
    let options = Options { eos: None, max_tokens: 4, ..Options::default() };
    let bad = engine.submit(&[DAMAGED, DAMAGED, DAMAGED], &options).unwrap();
    let allowed_vocab = Some(3);
    let good = engine.submit(&[5, 5], &Options { allowed_vocab, ..options }).unwrap();
    let sequences = finish(&mut engine);
    assert_eq!(sequences[&bad].1, Some(Finish::NotFinite));
    assert_eq!(sequences[&good].1, Some(Finish::Length));
}

#[test]
fn guesses_are_refused_where_bits_depend_on_the_number_of_rows() {
    let limits = Limits { max_sequences: 2, max_tokens: 20 };
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let ndarray = Device::ndarray();
    for (name, device) in [("cross-attention", Device::flex()), ("prefix", ndarray)] {
        let model = model(&shape(name), &device);
        let engine = || Engine::new(&model, limits, &device).unwrap();
        assert!(!engine().speculates());
        let error = engine().with_speculation(Speculate::Tokens(3)).unwrap_err();
        assert!(matches!(error, GenerationError::Speculation));
        for speculate in [Speculate::Auto, Speculate::Off, Speculate::Tokens(0)] {
            assert_eq!(engine().with_speculation(speculate).unwrap().speculation(), None);
        }
    }
}
