//! Whole models: generation on the device against generation on flex.

use std::collections::HashMap;
use std::ops::ControlFlow;

use block_transformer_device::DeviceName;
use block_transformer_generation::{
    Engine, Event, Limits, Options, Sampling, SequenceId, TokenLogProbs, generate,
};
use block_transformer_zoo::preset;
use burn::tensor::Device;

use crate::runtimes;

#[test]
fn greedy_tokens_equal_those_of_flex_alone_and_together() {
    for name in ["debug-block", "debug-vanilla"] {
        let config = &preset(name).unwrap().model;
        let prompts: Vec<Vec<u32>> =
            [1, 5].map(|length| (0..length).map(|i| 7 * i + length).collect()).into();
        let continued = |prompts: &[Vec<u32>], device: &Device| {
            let model = config.init(3, device);
            let options = Options { max_tokens: 6, eos: None, ..Options::default() };
            let go_on = |_, _| ControlFlow::Continue(());
            generate(&model, prompts, &options, device, go_on).unwrap()
        };
        let theirs = continued(&prompts, &Device::flex());
        for (runtime, device) in runtimes() {
            assert_eq!(continued(&prompts, &device), theirs, "{runtime}, {name}");
            assert_eq!(continued(&prompts[1..2], &device), theirs[1..2], "{runtime}, {name}");
        }
    }
}

#[test]
fn a_step_returns_a_block_and_sequences_come_and_go_between_blocks() {
    for (runtime, device) in runtimes() {
        let model = preset("debug-block").unwrap().model.init(3, &device);
        let limits = Limits { max_sequences: 2, max_tokens: 40 };
        let mut engine = Engine::new(&model, limits, &device).unwrap();
        let options = |max_tokens| Options { max_tokens, eos: None, ..Options::default() };
        let ids = [6, 9, 5].map(|count| engine.submit(&[1, 2, 3], &options(count)).unwrap());
        let mut tokens = [0; 3];
        let mut steps = Vec::new();
        while !engine.is_idle() {
            let events = engine.step().unwrap();
            let of = |event: &Event| ids.iter().position(|id| *id == event.id()).unwrap();
            let new = events.iter().filter(|event| matches!(event, Event::Token { .. }));
            steps.push(new.clone().count());
            new.for_each(|event| tokens[of(event)] += 1);
        }
        assert_eq!(tokens, [6, 9, 5], "{runtime}");
        // two sequences of four tokens; 2 + 4; then 1 + 4, and 1 of the third sequence
        assert_eq!(steps, [8, 6, 5, 1], "{runtime}");
    }
}

/// Decodes prompts that come and go, and returns their tokens and whether a block was replayed.
fn decoded(name: &str, sampling: Sampling, graphs: bool, device: &Device) -> (Vec<Vec<u32>>, bool) {
    let model = preset(name).unwrap().model.init(3, device);
    let limits = Limits { max_sequences: 3, max_tokens: 400 };
    let mut engine = Engine::new(&model, limits, device).unwrap().with_graphs(graphs);
    // a prompt shorter than a block, whole blocks, and one that ends within a block; contexts of
    // more than 64 blocks need another graph
    let lengths = [(3, 9), (4, 21), (9, 18), (250, 18)];
    let ids = lengths.map(|(prompt, max_tokens)| {
        let prompt: Vec<u32> = (0..prompt).map(|i| (7 * i + prompt) % 300).collect();
        let (eos, rng_stream) = (None, prompt.len());
        engine
            .submit(
                &prompt,
                &Options { sampling, max_tokens, eos, rng_stream, ..Options::default() },
            )
            .unwrap()
    });
    let (mut tokens, mut replayed) = (vec![Vec::new(); ids.len()], false);
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Token { id, token, .. } = event {
                tokens[ids.iter().position(|known| *known == id).unwrap()].push(token);
            }
        }
        replayed |= engine.replays();
    }
    assert_eq!(tokens.iter().map(Vec::len).collect::<Vec<_>>(), lengths.map(|(_, count)| count));
    (tokens, replayed)
}

#[test]
fn prefixes_and_choices_have_the_tokens_of_sequences_that_run_everything() {
    for (runtime, device) in runtimes() {
        for name in ["debug-block", "debug-vanilla"] {
            let model = preset(name).unwrap().model.init(3, &device);
            let limits = Limits { max_sequences: 3, max_tokens: 100 };
            let new = || Engine::new(&model, limits, &device).unwrap().with_graphs(true);
            let ids = |length: u32| (0..length).map(|i| (7 * i + length) % 300).collect::<Vec<_>>();
            let options = |max_tokens| Options { max_tokens, eos: None, ..Options::default() };
            // the same prefix several times, with choices that wait for a slot, and longer runs that are replayed
            let requests = [(22, 9, 2, 24), (0, 30, 5, 12), (22, 3, 1, 24), (22, 0, 4, 8)];
            let mut engine = new().with_prefixes(1 << 24);
            let mut found: HashMap<SequenceId, Vec<u32>> = HashMap::new();
            let submitted = requests.map(|(prefix, prompt, count, max_tokens)| {
                let choices = vec![options(max_tokens); count];
                engine.submit_choices(&ids(prefix), &ids(prompt), &choices).unwrap()
            });
            while !engine.is_idle() {
                for event in engine.step().unwrap() {
                    if let Event::Token { id, token, .. } = event {
                        found.entry(id).or_default().push(token);
                    }
                }
            }
            let counts = engine.prefixes();
            assert_eq!((counts.misses, counts.entries), (1, 1), "{runtime}, {name}");
            assert!(counts.hits > 0 && counts.forks > 0, "{runtime}, {name}");
            for ((prefix, prompt, _, max_tokens), choices) in requests.into_iter().zip(submitted) {
                let mut engine = new();
                let one = [options(max_tokens)];
                engine.submit_choices(&ids(prefix), &ids(prompt), &one).unwrap();
                let mut alone = Vec::new();
                while !engine.is_idle() {
                    alone.extend(engine.step().unwrap().into_iter().filter_map(
                        |event| match event {
                            Event::Token { token, .. } => Some(token),
                            Event::Finished { .. } => None,
                        },
                    ));
                }
                for id in choices {
                    assert_eq!(
                        found[&id], alone,
                        "{runtime}, {name}, {prefix} and {prompt} tokens"
                    );
                }
            }
        }
    }
}

#[test]
fn replayed_blocks_have_the_tokens_of_launched_ones() {
    // cubecl-cpu has no graphs
    for (_, device) in runtimes().into_iter().filter(|(name, _)| *name == DeviceName::WgpuCpu) {
        for name in ["debug-block", "debug-vanilla"] {
            for sampling in [Sampling::greedy(), Sampling::at(0.9, 5)] {
                let (launched, none) = decoded(name, sampling, false, &device);
                let (captured, replayed) = decoded(name, sampling, true, &device);
                assert!(replayed && !none, "{name}");
                assert_eq!(captured, launched, "{name}, {sampling:?}");
            }
        }
    }
}

#[test]
fn sequences_that_need_the_host_do_not_change_the_others() {
    type Tokens = Vec<(u32, Option<Box<TokenLogProbs>>)>;
    let plain = Options { max_tokens: 11, eos: None, ..Options::default() };
    let sampling = Sampling::at(0.9, 5);
    let on_device = [plain.clone(), Options { sampling, rng_stream: 1, ..plain.clone() }];
    let penalized = Sampling { min_p: Some(0.01), frequency_penalty: 1.0, ..sampling };
    let on_host = [
        Options { logprobs: Some(3), rng_stream: 2, ..plain.clone() },
        Options { sampling: penalized, rng_stream: 3, max_tokens: 7, ..plain },
    ];
    let mixed =
        [on_device[0].clone(), on_host[0].clone(), on_device[1].clone(), on_host[1].clone()];
    for name in ["debug-block", "debug-vanilla"] {
        let decode = |all: &[Options], graphs: bool, device: &Device| -> Vec<Tokens> {
            let model = preset(name).unwrap().model.init(3, device);
            let limits = Limits { max_sequences: 4, max_tokens: 40 };
            let mut engine = Engine::new(&model, limits, device).unwrap().with_graphs(graphs);
            for options in all {
                // a whole block, which a graph can append
                let prompt: Vec<u32> = (1..9).map(|i| 7 * i + options.rng_stream as u32).collect();
                engine.submit(&prompt, options).unwrap();
            }
            let mut tokens = vec![Vec::new(); all.len()];
            while !engine.is_idle() {
                for event in engine.step().unwrap() {
                    if let Event::Token { id, token, logprobs } = event {
                        tokens[id.index()].push((token, logprobs));
                    }
                }
            }
            tokens
        };
        let of_flex = decode(&on_host, false, &Device::flex());
        for (runtime, device) in runtimes() {
            let graphs = runtime == DeviceName::WgpuCpu;
            let alone = decode(&on_device, graphs, &device);
            let [greedy, scored, drawn, penalized] =
                decode(&mixed, graphs, &device).try_into().unwrap();
            assert_eq!([greedy, drawn][..], alone, "{runtime}, {name}");
            assert_eq!(penalized, of_flex[1], "{runtime}, {name}");
            assert_eq!(scored.len(), of_flex[0].len());
            for ((token, ours), (expected, theirs)) in scored.iter().zip(&of_flex[0]) {
                let [ours, theirs] = [ours, theirs].map(|of| of.as_ref().unwrap());
                assert_eq!((token, ours.top.len()), (expected, 3), "{runtime}, {name}");
                assert!((ours.log_prob - theirs.log_prob).abs() < 1e-3, "{ours:?}, {theirs:?}");
            }
        }
    }
}
