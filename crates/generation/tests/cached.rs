//! Decoding with caches gives the same tokens as decoding without caches, and a batch the same
//! tokens as single prompts.

mod common;

use std::ops::ControlFlow;

use block_transformer_generation::{GenerationError, Options, Sampling, generate};
use block_transformer_testing::{VOCAB, model, prompts, shape, shapes};
use burn::tensor::Device;
use common::uncached;

const COUNT: usize = 10;

fn options(sampling: Sampling) -> Options {
    Options { sampling, max_tokens: COUNT, eos: None, ..Options::default() }
}

fn go_on(_: usize, _: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn caches_do_not_change_tokens() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        for sampling in [Sampling::greedy(), Sampling::at(1.0, 5)] {
            let prompts = prompts(10);
            let ours = generate(&model, &prompts, &options(sampling), &device, go_on);
            for (row, (prompt, ours)) in prompts.iter().zip(ours.unwrap()).enumerate() {
                let from = (sampling, row);
                let expected = uncached(&model, prompt, from, COUNT, &device);
                assert_eq!(ours, expected, "{name}, prompt of {row} tokens, {sampling:?}");
            }
        }
    }
}

#[test]
fn a_batch_gives_each_prompt_the_tokens_it_gets_alone() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        for sampling in [Sampling::greedy(), Sampling::at(0.9, 5)] {
            let prompts = prompts(12);
            let options = options(sampling);
            let batch = generate(&model, &prompts, &options, &device, go_on).unwrap();
            for (rng_stream, prompt) in prompts.iter().enumerate() {
                let options = Options { rng_stream, ..options.clone() };
                let prompt = std::slice::from_ref(prompt);
                let alone = generate(&model, prompt, &options, &device, go_on).unwrap();
                assert_eq!(alone[0], batch[rng_stream], "{name}, prompt {rng_stream}");
            }
        }
    }
}

#[test]
fn the_models_of_these_tests_depend_on_their_context() {
    let device = Device::flex();
    // the CLS tokens of an untrained encoder hardly depend on their block
    for (name, config) in shapes().into_iter().filter(|(name, _)| !name.starts_with("cls")) {
        let model = model(&config, &device);
        let greedy = options(Sampling::greedy());
        let ours = generate(&model, &prompts(10), &greedy, &device, go_on).unwrap();
        let different: std::collections::BTreeSet<_> = ours.iter().collect();
        assert!(different.len() > 6, "{name}: {ours:?}");
    }
}

#[test]
fn a_sequence_ends_at_eos_and_the_others_continue() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        let free = options(Sampling::at(1.0, 5));
        let all = generate(&model, &prompts(6), &free, &device, go_on).unwrap();
        // a token that one of the sequences contains becomes EOS
        let eos = Some(all[3][5]);
        let options = Options { eos, ..free };
        let ours = generate(&model, &prompts(6), &options, &device, go_on).unwrap();
        for (ours, all) in ours.iter().zip(&all) {
            let end = all.iter().position(|id| Some(*id) == eos).unwrap_or(COUNT);
            assert_eq!(ours, &all[..end], "{name}");
        }
    }
}

#[test]
fn tokens_are_reported_at_once_and_break_ends_a_sequence() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let config = shape(name);
        let model = model(&config, &device);
        let mut seen = vec![Vec::new(); 5];
        let on_token = |row: usize, id| {
            seen[row].push(id);
            if seen[row].len() == row + 1 { ControlFlow::Break(()) } else { go_on(row, id) }
        };
        let greedy = options(Sampling::greedy());
        let ours = generate(&model, &prompts(5), &greedy, &device, on_token).unwrap();
        assert_eq!(ours, seen);
        assert_eq!(ours.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn no_prompts_or_no_tokens_give_empty_results() {
    let device = Device::flex();
    let config = shape("prefix");
    let model = model(&config, &device);
    let none = Options { max_tokens: 0, ..Options::default() };
    let ours = generate(&model, &prompts(3), &none, &device, go_on).unwrap();
    assert_eq!(ours, vec![Vec::<u32>::new(); 3]);
    let ours = generate(&model, &[], &Options::default(), &device, go_on).unwrap();
    assert!(ours.is_empty());
}

#[test]
fn a_model_in_training_is_used_without_autodiff() {
    let device = Device::flex();
    let config = shape("prefix");
    let greedy = options(Sampling::greedy());
    let plain = model(&config, &device);
    let plain = generate(&plain, &prompts(3), &greedy, &device, go_on).unwrap();
    let device = device.autodiff();
    let training = model(&config, &device);
    let training = generate(&training, &prompts(3), &greedy, &device, go_on).unwrap();
    assert_eq!(training, plain);
}

#[test]
fn prompts_and_options_that_do_not_fit_the_model_are_refused() {
    let device = Device::flex();
    let config = shape("prefix");
    let model = model(&config, &device);
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
