//! Prefixes and choices against sequences that run everything themselves.

use std::collections::HashMap;

use super::*;
use crate::event::SequenceId;
use crate::prefixes::{HeadBytes, Prefixes};

/// Prefix, prompt and number of choices.
type Request = (Vec<u32>, Vec<u32>, usize);

/// A scheduler and a runner for a model.
struct Decoder {
    scheduler: Scheduler,
    runner: Runner,
}

/// A choice of a request: a random stream and its tokens, which do not depend on the logits.
fn options(choice: usize) -> Options {
    let sampling = Sampling::at(1.0, 3);
    let (max_tokens, rng_stream) = (3 + choice * 5 % 11, choice);
    let allowed_vocab = Some(250);
    Options { sampling, max_tokens, eos: None, allowed_vocab, rng_stream, ..Options::default() }
}

impl Decoder {
    fn new(
        model: &LanguageModel,
        (slots, prompt_blocks, budget): (usize, usize, u64),
        format: CacheFormat,
        device: &Device,
    ) -> Self {
        let limits = Limits { max_sequences: slots, max_tokens: 250 };
        let config = model.config();
        let runner = Runner::new(model, limits, format, device);
        let mut scheduler = Scheduler::new(config.block_length(), slots, prompt_blocks);
        scheduler.prefixes = Prefixes::new(HeadBytes::new(&config, format));
        scheduler.prefixes.set_budget(budget);
        Self { scheduler, runner }
    }

    fn submit(&mut self, (prefix, prompt, choices): &Request) -> Vec<SequenceId> {
        let options: Vec<Options> = (0..*choices).map(options).collect();
        self.scheduler.submit_choices(prefix, prompt, &options)
    }

    /// Runs all sequences to their ends.
    fn run(&mut self) -> HashMap<SequenceId, Decoded> {
        let mut decoded: HashMap<SequenceId, Decoded> = HashMap::new();
        while let Some(planned) = self.scheduler.plan() {
            let logits = values(self.runner.run(&planned));
            let samplers = self.scheduler.samplers().into_iter();
            let chosen =
                samplers.map(|sampler| sampler.choose_with_logprobs(&[0.0; 250])).collect();
            let mut events = Vec::new();
            self.scheduler.settle(chosen, &mut events);
            let tokens = events.into_iter().filter_map(|event| match event {
                Event::Token { id, token, .. } => Some((id, token)),
                Event::Finished { .. } => None,
            });
            for ((id, token), logits) in tokens.zip(logits) {
                let sequence = decoded.entry(id).or_default();
                sequence.tokens.push(token);
                sequence.logits.push(logits);
            }
        }
        decoded
    }

    /// Decodes requests together, and returns the choices of each.
    fn decode(&mut self, requests: &[Request]) -> Vec<Vec<Decoded>> {
        let ids: Vec<Vec<SequenceId>> =
            requests.iter().map(|request| self.submit(request)).collect();
        let mut decoded = self.run();
        let mut of = |id: &SequenceId| decoded.remove(id).unwrap();
        ids.iter().map(|ids| ids.iter().map(&mut of).collect()).collect()
    }
}

fn requests() -> Vec<Request> {
    let [short, whole, long] = [9, 16, 130].map(|length| prompts_of([length]).remove(0));
    let prompt = |length: usize| prompts_of([length]).remove(0);
    vec![
        (short.clone(), prompt(6), 1),
        (Vec::new(), prompt(7), 3),
        (short.clone(), prompt(5), 4),
        (long.clone(), prompt(2), 1),
        (short.clone(), Vec::new(), 2),
        (whole.clone(), prompt(8), 1),
        (long, prompt(40), 2),
        (whole, Vec::new(), 1),
        (short, prompt(6), 1),
    ]
}

/// The choices of a request, each of which runs everything itself on flex.
fn alone(
    model: &LanguageModel,
    (prefix, prompt, choices): &Request,
    format: CacheFormat,
) -> Vec<Decoded> {
    let one = |choice: usize| {
        let mut decoder = Decoder::new(model, (1, 1, 0), format, &Device::flex());
        decoder.scheduler.submit_choices(prefix, prompt, &[options(choice)]);
        let decoded = decoder.run().into_values().next().unwrap();
        assert_eq!(decoder.scheduler.prefixes.counts(1).saved_positions, 0);
        decoded
    };
    (0..*choices).map(one).collect()
}

fn bits(decoded: &Decoded) -> Vec<u32> {
    decoded.logits.iter().flatten().map(|logit| logit.to_bits()).collect()
}

#[test]
fn shared_blocks_have_the_bits_of_blocks_that_are_run() {
    let (device, requests) = (Device::flex(), requests());
    for (name, config) in shapes() {
        let model = model(&config, &device);
        let narrow = ["prefix", "cross-attention", "unequal widths", "vanilla"].contains(&name);
        let formats = [CacheFormat::F32, CacheFormat::Bf16, CacheFormat::Int8];
        for format in formats.into_iter().take(if narrow { 3 } else { 1 }) {
            let expected: Vec<Vec<Decoded>> =
                requests.iter().map(|request| alone(&model, request, format)).collect();
            for (slots, prompt_blocks, budget) in
                [(16, usize::MAX, u64::MAX), (3, 1, u64::MAX), (3, 5, 0), (1, 2, 1 << 20)]
            {
                let sizes = (slots, prompt_blocks, budget);
                let mut decoder = Decoder::new(&model, sizes, format, &device);
                // the second time, all prefixes may be kept
                for time in 0..2 {
                    let found = decoder.decode(&requests);
                    for (request, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        assert_eq!(found.len(), expected.len());
                        for (found, expected) in found.iter().zip(expected) {
                            let what = format!("{name}, {format}, {sizes:?}, {time}, {request}");
                            assert_eq!(found.tokens, expected.tokens, "{what}");
                            assert!(bits(found) == bits(expected), "{what}");
                        }
                    }
                }
                let counts = decoder.scheduler.prefixes.counts(1);
                assert_eq!(counts.hits + counts.misses, 2 * 13);
                assert!(counts.forks > 0 && counts.saved_positions > 0, "{counts:?}");
                if budget == u64::MAX {
                    assert_eq!((counts.misses, counts.entries), (3, 3), "{counts:?}");
                }
            }
        }
    }
}

#[test]
fn a_prefix_and_a_prompt_are_padded_on_their_own() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        let l = model.config().block_length();
        for (prefix, prompt) in [(5, 6), (8, 3), (1, 1), (4, 4), (7, 0)] {
            let [prefix, prompt] = [prefix, prompt].map(|length| prompts_of([length]).remove(0));
            let mut decoder = Decoder::new(&model, (1, 1, u64::MAX), CacheFormat::F32, &device);
            for _ in 0..2 {
                let ours =
                    decoder.decode(&[(prefix.clone(), prompt.clone(), 1)]).remove(0).remove(0);
                // one pass over the whole sequence
                let (mut ids, mut is_token) = (Vec::new(), Vec::new());
                for part in [&prefix, &prompt] {
                    let padding = part.len().next_multiple_of(l) - part.len();
                    ids.extend(std::iter::repeat_n(PAD, padding).chain(part.iter().copied()));
                    is_token.extend((0..padding + part.len()).map(|i| i >= padding));
                }
                let known = ids.len();
                ids.extend(&ours.tokens);
                is_token.resize(ids.len(), true);
                let time = ids.len().next_multiple_of(l);
                ids.resize(time, PAD);
                is_token.resize(time, false);
                let batch = TokenBatch {
                    ids: int_tensor(ids, &device).reshape([1, time]),
                    is_token: PaddingMask::new(is_token),
                    block_length: l,
                };
                let (logits, _) = model.predict(&batch);
                let theirs = values(logits.narrow(1, known - l, ours.tokens.len()).squeeze_dim(0));
                let what = format!("{name}, {} and {} tokens", prefix.len(), prompt.len());
                assert_close(&ours.logits, &theirs, &what);
            }
            assert_eq!(decoder.scheduler.prefixes.counts(1).hits, 1);
        }
    }
}

#[test]
fn the_memory_of_prefixes_is_that_of_their_tensors() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        for format in [CacheFormat::F32, CacheFormat::Bf16, CacheFormat::Int8] {
            let mut decoder = Decoder::new(&model, (2, 9, u64::MAX), format, &device);
            decoder.decode(&requests());
            let counts = decoder.scheduler.prefixes.counts(1);
            assert_eq!(counts.bytes, decoder.scheduler.prefixes.stored_bytes(), "{name}, {format}");
            assert_eq!(counts.entries, 3);
        }
    }
}

#[test]
fn devices_without_kernels_share_blocks_too() {
    #[expect(deprecated, reason = "supported for as long as burn has it")]
    let other = Device::ndarray();
    let requests = requests();
    for name in ["prefix", "two embeddings", "vanilla"] {
        let [flex, model] = [&Device::flex(), &other].map(|device| model(&shape(name), device));
        let mut decoder = Decoder::new(&model, (3, 4, u64::MAX), CacheFormat::F32, &other);
        decoder.decode(&requests);
        for (request, ours) in requests.iter().zip(decoder.decode(&requests)) {
            for (ours, theirs) in ours.iter().zip(alone(&flex, request, CacheFormat::F32)) {
                let what = format!("{name}, {} and {} tokens", request.0.len(), request.1.len());
                assert_close(&ours.logits, &theirs.logits, &what);
            }
        }
        assert_eq!(decoder.scheduler.prefixes.counts(1).misses, 3);
    }
}
