//! Log-probabilities, penalties, bias and stop tokens: each sequence gets what it gets alone, whatever the others
//! ask for.

use block_transformer_family::{CacheFormat, Family, FamilyConfig, PaddingMask, TokenBatch};
use block_transformer_generation::{
    Engine, Event, Finish, GenerationError, Limits, Options, PAD, Sampling, Speculate,
    TokenLogProbs,
};
use block_transformer_layers::int_tensor;
use block_transformer_testing::{VOCAB, model, prompts_of, shapes};
use block_transformer_zoo::LanguageModel;
use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Submission, on_flex};

/// The events of a sequence.
#[derive(Clone, Debug, Default, PartialEq)]
struct Decoded {
    tokens: Vec<u32>,
    logprobs: Vec<Option<Box<TokenLogProbs>>>,
    finish: Option<Finish>,
}

/// Decodes all prompts, `max_sequences` at a time.
fn decode(
    model: &LanguageModel,
    (speculate, max_sequences, cache): (Speculate, usize, CacheFormat),
    prompts: &[Submission],
) -> Vec<Decoded> {
    let limits = Limits { max_sequences, max_tokens: 90 };
    let engine = Engine::with_cache(model, limits, cache, &Device::flex()).unwrap();
    let mut engine = engine.with_speculation(speculate).unwrap();
    for (prompt, options) in prompts {
        engine.submit(prompt, options).unwrap();
    }
    let mut all = vec![Decoded::default(); prompts.len()];
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            let of = &mut all[event.id().index()];
            match event {
                Event::Token { token, logprobs, .. } => {
                    of.tokens.push(token);
                    of.logprobs.push(logprobs);
                }
                Event::Finished { reason, .. } => of.finish = Some(reason),
            }
        }
    }
    all
}

fn plain(model: &LanguageModel, max_sequences: usize, prompts: &[Submission]) -> Vec<Decoded> {
    decode(model, (Speculate::Off, max_sequences, CacheFormat::F32), prompts)
}

/// Prompts of a few tokens that repeat themselves, so that guesses are right, with options of all kinds.
fn mixed(count: usize, seed: u64) -> Vec<Submission> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut one = |index: usize| {
        let length = random.random_range(0..30);
        let prompt = (0..length).map(|_| 10 + random.random_range(0..3)).collect();
        let mut sampling =
            if index.is_multiple_of(2) { Sampling::greedy() } else { Sampling::at(0.4, 5) };
        sampling.min_p = random.random_bool(0.5).then_some(0.2);
        if random.random_bool(0.4) {
            sampling.presence_penalty = random.random_range(-2.0..2.0);
            sampling.frequency_penalty = random.random_range(-0.5..0.5);
        }
        let some = |random: &mut ChaCha8Rng, least| -> Vec<u32> {
            let count = random.random_range(least..4);
            (0..count).map(|_| random.random_range(2..VOCAB as u32 - 2)).collect()
        };
        let bias = if random.random_bool(0.3) { some(&mut random, 1) } else { Vec::new() };
        let options = Options {
            sampling,
            max_tokens: random.random_range(0..50),
            eos: None,
            stop_tokens: some(&mut random, 0),
            logit_bias: bias.into_iter().map(|id| (id, random.random_range(-9.0..9.0))).collect(),
            logprobs: random.random_bool(0.5).then(|| random.random_range(0..6)),
            allowed_vocab: index.is_multiple_of(3).then_some(VOCAB - 2),
            rng_stream: index,
        };
        (prompt, options)
    };
    (0..count).map(&mut one).collect()
}

#[test]
fn each_sequence_gets_alone_what_it_gets_among_others() {
    let prompts = mixed(40, 1);
    for (name, config) in shapes() {
        let model = &model(&config, &Device::flex());
        let together = plain(model, 40, &prompts);
        assert!(together == plain(model, 3, &prompts), "{name}");
        let one = |prompt: &Submission| plain(model, 1, std::slice::from_ref(prompt)).remove(0);
        let mut ends = [0; 2];
        for (i, (prompt, ours)) in prompts.iter().zip(&together).enumerate() {
            assert_eq!(*ours, one(prompt), "{name}, prompt {i}");
            let (_, options) = prompt;
            let stops = |token: &u32| options.stop_tokens.contains(token);
            assert!(!ours.tokens.iter().any(stops), "{name}, prompt {i}");
            match ours.finish {
                Some(Finish::Length) => ends[0] += 1,
                Some(Finish::Stop) => ends[1] += 1,
                other => panic!("{name}, prompt {i}: {other:?}"),
            }
            for (&token, logprobs) in ours.tokens.iter().zip(&ours.logprobs) {
                let found = logprobs.as_ref().map(|logprobs| logprobs.top.len());
                assert_eq!(found, options.logprobs, "{name}, prompt {i}");
                let Some(logprobs) = logprobs else { continue };
                assert!(logprobs.log_prob < 0.0);
                let own = logprobs.top.iter().find(|(id, _)| *id == token);
                assert!(own.is_none_or(|(_, log_prob)| *log_prob == logprobs.log_prob));
            }
            // the tokens are the same without log-probabilities
            let without = Options { logprobs: None, ..options.clone() };
            let without = one(&(prompt.0.clone(), without));
            assert_eq!((&without.tokens, without.finish), (&ours.tokens, ours.finish), "{name}");
        }
        assert!(ends[0] > 5 && ends[1] > 0, "{name}: {ends:?}");
    }
}

#[test]
fn guesses_do_not_change_it() {
    let prompts = mixed(40, 2);
    for (name, config) in shapes().into_iter().filter(|(name, _)| *name != "cross-attention") {
        let model = &model(&config, &Device::flex());
        for cache in [CacheFormat::F32, CacheFormat::Int8] {
            let expected = decode(model, (Speculate::Off, 40, cache), &prompts);
            for speculate in [Speculate::Auto, Speculate::Tokens(3), Speculate::Tokens(40)] {
                for max_sequences in [1, 4] {
                    let ours = decode(model, (speculate, max_sequences, cache), &prompts);
                    for (i, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
                        assert_eq!(ours, expected, "{name}, {speculate:?}, prompt {i}");
                    }
                }
            }
        }
    }
}

#[test]
fn log_probabilities_are_those_of_a_pass_without_caches() {
    let device = Device::flex();
    let (prompt, sampling) = (prompts_of([9]).remove(0), Sampling::at(1.0, 3));
    let sampling = Sampling { frequency_penalty: 1.0, min_p: Some(0.01), ..sampling };
    let options =
        Options { sampling, max_tokens: 14, eos: None, logprobs: Some(4), ..Options::default() };
    for (name, config) in shapes() {
        let (model, l) = (&model(&config, &device), config.block_length());
        let ours = plain(model, 1, &[(prompt.clone(), options.clone())]).remove(0);
        let left = prompt.len().next_multiple_of(l) - prompt.len();
        let mut ids = [vec![PAD; left], prompt.clone(), ours.tokens.clone()].concat();
        let until = ids.len();
        let time = until.next_multiple_of(l);
        ids.resize(time, PAD);
        let (logits, _) = model.predict(&TokenBatch {
            ids: int_tensor(ids, &device).reshape([1, time]),
            is_token: PaddingMask::new((0..time).map(|i| (left..until).contains(&i)).collect()),
            block_length: l,
        });
        let logits = logits.narrow(1, left + prompt.len() - l, ours.tokens.len());
        let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
        for (row, (&token, found)) in ours.tokens.iter().zip(&ours.logprobs).enumerate() {
            let (row, found) = (&logits[row * VOCAB..][..VOCAB], found.as_ref().unwrap());
            let total: f64 = row.iter().map(|logit| logit.exp()).sum();
            let close = |id: u32, log_prob: f64| {
                let expected = row[id as usize] - total.ln();
                let difference = (log_prob - expected).abs();
                // the logits are summed in another order; attention without a scale amplifies this
                assert!(difference < 2e-3, "{name}: {log_prob}, {expected}");
            };
            close(token, found.log_prob);
            found.top.iter().for_each(|&(id, log_prob)| close(id, log_prob));
            let mut sorted: Vec<f64> = row.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            assert!(sorted[3] - found.top[3].1 < total.ln() + 2e-3, "{name}");
        }
    }
}

#[test]
fn a_stop_token_ends_its_sequence_and_is_not_reported() {
    let model = on_flex("prefix");
    let prompt = prompts_of([5]).remove(0);
    let options = Options { max_tokens: 12, eos: None, ..Options::default() };
    let whole = plain(&model, 1, &[(prompt.clone(), options.clone())]).remove(0).tokens;
    for stop in [whole[0], whole[5], whole[11]] {
        let end = whole.iter().position(|token| *token == stop).unwrap();
        let stopped = Options { stop_tokens: vec![300, stop], ..options.clone() };
        let both = Options { eos: Some(stop), ..stopped.clone() };
        for (options, finish) in [(stopped, Finish::Stop), (both, Finish::Eos)] {
            let ours = plain(&model, 1, &[(prompt.clone(), options)]).remove(0);
            assert_eq!((&ours.tokens[..], ours.finish), (&whole[..end], Some(finish)));
        }
    }
}

#[test]
fn values_out_of_range_are_refused() {
    let model = on_flex("prefix");
    let limits = Limits { max_sequences: 1, max_tokens: 9 };
    let mut engine = Engine::new(&model, limits, &Device::flex()).unwrap();
    let mut refused = |options: Options| engine.submit(&[5], &options).unwrap_err();
    let plain = Options { max_tokens: 1, ..Options::default() };
    let bias = |id, bias| Options { logit_bias: vec![(3, 1.0), (id, bias)], ..plain.clone() };
    for (id, value) in [(7, 100.5), (8, f32::NAN), (9, f32::NEG_INFINITY)] {
        let error = refused(bias(id, value));
        assert!(matches!(error, GenerationError::LogitBias { id: of, .. } if of == id), "{error}");
    }
    let error = refused(bias(VOCAB as u32, 1.0));
    assert!(matches!(error, GenerationError::LogitBiasId { id: 260, vocab: VOCAB }), "{error}");
    assert!(error.to_string().contains("token id 260 is outside the vocabulary of 260"));
    let error = refused(Options { allowed_vocab: Some(50), ..bias(50, 1.0) });
    assert!(matches!(error, GenerationError::LogitBiasId { id: 50, vocab: 50 }), "{error}");
    let sampling = Sampling { min_p: Some(2.0), ..Sampling::greedy() };
    let error = refused(Options { sampling, ..plain.clone() });
    assert!(matches!(error, GenerationError::MinP(_)), "{error}");
    assert!(engine.is_idle());
    engine.submit(&[5], &Options { allowed_vocab: Some(50), ..bias(49, -100.0) }).unwrap();
}
