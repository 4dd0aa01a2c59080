//! Schedules of random submissions, cancellations and steps: each sequence gets the tokens that it gets alone.

use std::collections::BTreeMap;

use block_transformer_family::{CacheFormat, Family};
use block_transformer_generation::{
    Engine, Event, Finish, Limits, Options, PrefixCounts, Sampling, SequenceId, Speculate,
};
use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::prefixes::{self, Request, tokens};
use super::{Submission, alone, engine, on_flex, options, with_options};

/// The tokens of each choice of a request.
type Answers = Vec<Vec<u32>>;

/// Submits requests with these answers, cancels and decodes at random, until all sequences have ended.
pub(super) fn random_schedule(
    engine: &mut Engine,
    submit: impl Fn(&mut Engine, usize) -> Vec<SequenceId>,
    answers: &[Answers],
    seed: u64,
) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut live: BTreeMap<SequenceId, (&Vec<u32>, Vec<u32>)> = BTreeMap::new();
    for round in 0.. {
        match if round < 25 { random.random_range(0..10) } else { 10 } {
            0..3 => {
                let which = random.random_range(0..answers.len());
                let ids = submit(engine, which);
                let answers = answers[which].iter().map(|answer| (answer, Vec::new()));
                live.extend(ids.into_iter().zip(answers));
            }
            3 if !live.is_empty() => {
                let which = random.random_range(0..live.len());
                let id = *live.keys().nth(which).unwrap();
                live.remove(&id);
                assert!(engine.cancel(id));
            }
            10 if engine.is_idle() => break,
            _ => {
                for event in engine.step().unwrap() {
                    match event {
                        Event::Token { id, token, .. } => live.get_mut(&id).unwrap().1.push(token),
                        Event::Finished { id, reason } => {
                            let (answer, tokens) = live.remove(&id).unwrap();
                            assert_eq!((&tokens, reason), (answer, Finish::Length), "{seed}");
                        }
                    }
                }
            }
        }
        let PrefixCounts { bytes, budget, .. } = engine.prefixes();
        assert!(bytes <= budget);
    }
    assert!(live.is_empty(), "schedule {seed}");
    assert_eq!((engine.running(), engine.waiting()), (0, 0));
}

/// Submits prompts without a prefix and with one choice.
pub(super) fn submit_of(
    prompts: &[Submission],
) -> impl Fn(&mut Engine, usize) -> Vec<SequenceId> + Copy {
    |engine, which| {
        let (prompt, options) = &prompts[which];
        vec![engine.submit(prompt, options).unwrap()]
    }
}

/// Runs random schedules on several models for as long as `goes_on` says.
fn random_schedules(mut goes_on: impl FnMut(u64) -> bool) {
    let prompts = with_options((0..6).map(|i| ([1, 2, 5, 8, 13, 40][i], 3 + 5 * i % 17)));
    let mut engines = ["prefix", "cross-attention", "vanilla"].map(|name| {
        let model = on_flex(name);
        let answers: Vec<_> = prompts.iter().map(|prompt| vec![alone(&model, prompt)]).collect();
        (engine(&model, 3, 60), answers)
    });
    for seed in (0..).take_while(|&seed| goes_on(seed)) {
        for (engine, answers) in &mut engines {
            random_schedule(engine, submit_of(&prompts), answers, seed);
        }
    }
}

#[test]
fn random_schedules_give_each_sequence_the_tokens_it_gets_alone() {
    random_schedules(|seed| seed < 100);
}

/// `SOAK_MINUTES=30 cargo test -p block-transformer-generation --test engine -- --ignored soak`
#[cfg(target_os = "linux")]
#[test]
#[ignore = "runs for SOAK_MINUTES, by default 30"]
fn soak_without_growing_memory() {
    // kilobytes by which resident memory may grow after a tenth of the time
    const SLACK: u64 = 8 << 10;
    let minutes = std::env::var("SOAK_MINUTES").map_or(30.0, |text| text.parse().unwrap());
    let (start, mut warm) = (std::time::Instant::now(), None);
    random_schedules(|seed| {
        let passed = start.elapsed().as_secs_f64() / (60.0 * minutes);
        if passed > 0.1 {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let (_, resident) = status.split_once("VmRSS:").unwrap();
            let resident: u64 = resident.split_whitespace().next().unwrap().parse().unwrap();
            let warm = *warm.get_or_insert(resident);
            assert!(resident <= warm + SLACK, "{warm} to {resident} kB in {seed} schedules");
        }
        passed < 1.0
    });
}

/// Requests with equal prefixes, some of which repeat themselves so that guesses are right.
fn shared_requests() -> Vec<Request> {
    let prefixes = [Vec::new(), vec![10, 11, 12, 10, 11], tokens(16), tokens(7)];
    let request = |i: usize| {
        let prompt = match i % 3 {
            0 => vec![10, 11, 12, 10, 11, 12, 10],
            1 => tokens(3 * i % 14),
            _ => Vec::new(),
        };
        let count = [1, 2, 1, 5][i % 4];
        let one = |choice: usize| {
            let sampling =
                if choice.is_multiple_of(2) { Sampling::greedy() } else { Sampling::at(0.6, 4) };
            Options { sampling, ..options(i + choice, 2 + (5 * i + 3 * choice) % 17) }
        };
        (prefixes[i % 4].clone(), prompt, (0..count).map(one).collect())
    };
    (0..12).map(request).collect()
}

#[test]
fn random_requests_with_prefixes_and_choices_get_the_tokens_that_they_get_alone() {
    let requests = shared_requests();
    for (name, speculate) in [
        ("prefix", Speculate::Off),
        ("prefix", Speculate::Tokens(6)),
        ("cross-attention", Speculate::Off),
        ("two embeddings, summation", Speculate::Tokens(9)),
        ("roberta", Speculate::Off),
        ("vanilla", Speculate::Off),
        ("vanilla", Speculate::Tokens(3)),
    ] {
        let model = on_flex(name);
        let answers: Vec<Answers> =
            requests.iter().map(|request| prefixes::alone(&model, request)).collect();
        for (slots, budget) in [(3, 4000), (2, 0), (4, 1 << 20)] {
            let engine = engine(&model, slots, 60).with_prefixes(budget).with_prefill_budget(3);
            let mut engine = engine.with_speculation(speculate).unwrap();
            let submit =
                |engine: &mut Engine, which: usize| prefixes::submit(engine, &requests[which]);
            for seed in 0..30 {
                random_schedule(&mut engine, submit, &answers, seed);
            }
            let counts = engine.prefixes();
            assert!(counts.hits > 0 && counts.misses > 0 && counts.forks > 0, "{counts:?}");
            assert!(budget != 4000 || counts.evictions > 0, "{counts:?}");
            // nothing is needed any more
            let engine = engine.with_prefixes(0);
            assert_eq!((engine.prefixes().entries, engine.prefixes().bytes), (0, 0));
            let guessed = engine.speculation().unwrap_or_default();
            assert!(speculate == Speculate::Off || guessed.guessed > 0, "{name}, {guessed:?}");
        }
    }
}

#[test]
fn narrow_caches_and_prepared_models_share_blocks_too() {
    for (name, cache, budget) in [
        ("prefix", CacheFormat::Int8, 1000),
        ("unequal widths", CacheFormat::Bf16, 6000),
        ("vanilla", CacheFormat::Int8, 3000),
    ] {
        let model = on_flex(name).prepared();
        let limits = Limits { max_sequences: 3, max_tokens: 240 };
        let new = || Engine::with_cache(&model, limits, cache, &Device::flex()).unwrap();
        let requests = shared_requests();
        let answers: Vec<Answers> =
            requests.iter().map(|request| prefixes::alone_in(new, request)).collect();
        let submit = |engine: &mut Engine, which: usize| prefixes::submit(engine, &requests[which]);
        let mut engine = new().with_prefixes(budget);
        for seed in 0..20 {
            random_schedule(&mut engine, submit, &answers, seed);
        }
        assert!(engine.prefixes().hits > 0 && engine.prefixes().evictions > 0, "{name}");
    }
}
