//! `generate`: caches do not change its tokens, and its callback sees them at once.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use block_transformer_family::{Family, FamilyConfig, PaddingMask, TokenBatch};
use block_transformer_generation::{EOS, Options, PAD, Sampler, Sampling, generate};
use block_transformer_layers::int_tensor;
use block_transformer_testing::{model, prompts, prompts_of, shape, shapes};
use block_transformer_zoo::LanguageModel;
use burn::tensor::Device;

use super::on_flex;

pub(super) fn go_on(_: usize, _: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn ten_tokens(sampling: Sampling) -> Options {
    Options { sampling, max_tokens: 10, eos: None, ..Options::default() }
}

/// Continues a prompt by ten tokens, recomputing everything for each of them.
fn uncached(model: &LanguageModel, prompt: &[u32], mut sampler: Sampler) -> Vec<u32> {
    let l = model.config().block_length();
    let prompt = if prompt.is_empty() { &[EOS] } else { prompt };
    let left = prompt.len().next_multiple_of(l) - prompt.len();
    let mut ids = [vec![PAD; left], prompt.to_vec()].concat();
    let first = ids.len();
    while ids.len() < first + 10 {
        // the rest of the block in progress is padding, to which no earlier token attends
        let (known, time) = (ids.len(), (ids.len() + 1).next_multiple_of(l));
        ids.resize(time, PAD);
        let batch = TokenBatch {
            ids: int_tensor(ids.iter().copied(), &Device::flex()).reshape([1, time]),
            is_token: PaddingMask::new((0..time).map(|i| (left..known).contains(&i)).collect()),
            block_length: l,
        };
        ids.truncate(known);
        let (logits, _) = model.predict(&batch);
        let row: Vec<f32> = logits.narrow(1, known - l, 1).into_data().iter::<f32>().collect();
        ids.push(sampler.choose(&row).unwrap());
    }
    ids.split_off(first)
}

#[test]
fn caches_do_not_change_tokens() {
    let device = Device::flex();
    for (name, config) in shapes() {
        let model = model(&config, &device);
        for sampling in [Sampling::greedy(), Sampling::at(1.0, 5)] {
            let ours = generate(&model, &prompts(10), &ten_tokens(sampling), &device, go_on);
            let ours = ours.unwrap();
            for (row, (prompt, ours)) in prompts(10).iter().zip(&ours).enumerate() {
                let expected = uncached(
                    &model,
                    prompt,
                    Sampler::new(&Options { rng_stream: row, ..ten_tokens(sampling) }),
                );
                assert_eq!(*ours, expected, "{name}, prompt of {row} tokens, {sampling:?}");
            }
            // the CLS tokens of an untrained encoder hardly depend on their block; the tokens of the
            // other models depend on their context
            let different: BTreeSet<_> = ours.iter().collect();
            assert!(different.len() > 6 || name.starts_with("cls"), "{name}: {ours:?}");
        }
    }
}

#[test]
fn prefill_in_chunks_does_not_change_tokens() {
    let device = Device::flex();
    for (name, length) in [("prefix", 2100), ("two embeddings", 1090), ("vanilla", 520)] {
        let (model, prompts) = (on_flex(name), prompts_of([length]));
        let greedy = ten_tokens(Sampling::greedy());
        let ours = generate(&model, &prompts, &greedy, &device, go_on).unwrap();
        let expected = uncached(&model, &prompts[0], Sampler::new(&greedy));
        assert_eq!(ours, [expected], "{name}");
    }
}

#[test]
fn generated_tokens_are_reported_at_once_and_break_ends_a_sequence() {
    let device = Device::flex();
    for name in ["prefix", "vanilla"] {
        let mut seen = vec![Vec::new(); 5];
        let on_token = |row: usize, id| {
            seen[row].push(id);
            if seen[row].len() == row + 1 { ControlFlow::Break(()) } else { go_on(row, id) }
        };
        let greedy = ten_tokens(Sampling::greedy());
        let ours = generate(&on_flex(name), &prompts(5), &greedy, &device, on_token).unwrap();
        assert_eq!(ours, seen);
        assert_eq!(ours.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn no_prompts_or_no_tokens_give_empty_results() {
    let (device, model) = (Device::flex(), on_flex("prefix"));
    let none = Options { max_tokens: 0, ..Options::default() };
    let ours = generate(&model, &prompts(3), &none, &device, go_on).unwrap();
    assert_eq!(ours, vec![Vec::<u32>::new(); 3]);
    assert!(generate(&model, &[], &Options::default(), &device, go_on).unwrap().is_empty());
}

#[test]
fn a_model_in_training_is_used_without_autodiff() {
    let [plain, training] = [Device::flex(), Device::flex().autodiff()].map(|device| {
        let model = model(&shape("prefix"), &device);
        generate(&model, &prompts(3), &ten_tokens(Sampling::greedy()), &device, go_on).unwrap()
    });
    assert_eq!(training, plain);
}
