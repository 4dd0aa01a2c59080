//! Whole models: generation on the device against generation on flex.

use std::ops::ControlFlow;

use block_transformer_generation::{Engine, Event, Limits, Options, generate};
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
