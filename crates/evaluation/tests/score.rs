//! The scorer compared with generation, with the training loss, and with itself in batches of other
//! sizes.

use std::ops::ControlFlow;
use std::path::Path;

use block_transformer_evaluation::{EvalError, Request, Scored, Scorer, rolling_windows};
use block_transformer_generation::{Options, Sampling, generate};
use block_transformer_zoo::{
    Family, FamilyConfig, LanguageModel, ModelConfig, PaddingMask, TokenBatch,
};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// One model for each kind of embedder and token decoder, and a vanilla one.
const CASES: [&str; 6] = [
    "vanilla",
    "lookup_prefix",
    "lookup_prefix_two_embeddings",
    "roberta_prefix",
    "cls_cross_attention",
    "lookup_prefix_b1",
];
const VOCAB: u32 = 96;

/// The model of a recorded case. Its matrices are enlarged so that every token has an effect.
fn golden(name: &str, device: &Device) -> (LanguageModel, ModelConfig) {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden"));
    let json = std::fs::read_to_string(dir.join(format!("{name}.json"))).unwrap();
    let config = ModelConfig::from_json(&json, name).unwrap();
    let weights = dir.join(format!("{name}.model.safetensors"));
    let (model, _) =
        block_transformer_weights::import(config.init(0, device), &config, &weights).unwrap();
    (model.map(&mut Larger), config)
}

struct Larger;

impl ModuleMapper for Larger {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let factor = if D > 1 { 4.0 } else { 1.0 };
        param.map(|value| value * factor)
    }
}

/// Pseudo-random ids.
fn ids(count: usize, salt: u32) -> Vec<u32> {
    let mut state = salt.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        2 + (state >> 16) % (VOCAB - 2)
    };
    (0..count).map(next).collect()
}

/// Requests with contexts and continuations of many lengths.
fn requests() -> Vec<Request> {
    let lengths = (0..40).map(|i| (i * 7 % 19, 1 + i * 5 % 11));
    let request = |(salt, (context, continuation)): (usize, (usize, usize))| Request {
        context: ids(context, salt as u32),
        continuation: ids(continuation, 1000 + salt as u32),
    };
    lengths.enumerate().map(request).collect()
}

fn score(scorer: &Scorer<LanguageModel>, requests: &[Request]) -> Vec<Scored> {
    scorer.score(requests, &mut |_, _| ()).unwrap()
}

/// The largest difference between two scores of the same token.
fn difference(a: &[Scored], b: &[Scored]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| {
        assert_eq!(a.log_probs.len(), b.log_probs.len());
        a.log_probs.iter().zip(&b.log_probs)
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn greedy_generations_are_greedy_and_become_not_greedy_by_one_other_token() {
    let device = Device::flex();
    for name in CASES {
        let (model, config) = golden(name, &device);
        let prompts: Vec<Vec<u32>> = (0..9).map(|length| ids(length, length as u32)).collect();
        let options = Options {
            sampling: Sampling::at(0.0, 0),
            max_tokens: 10,
            eos: None,
            ..Options::default()
        };
        let go_on = |_: usize, _: u32| ControlFlow::Continue(());
        let written = generate(&model, &prompts, &options, &device, go_on).unwrap();
        let request = |(context, continuation)| Request { context, continuation };
        let greedy: Vec<Request> = prompts.into_iter().zip(written).map(request).collect();
        let scorer = Scorer::new(&model);
        assert!(score(&scorer, &greedy).iter().all(|scored| scored.greedy), "{name}");
        let mut other = greedy.clone();
        other.iter_mut().for_each(|r| r.continuation[7] = (r.continuation[7] + 1) % VOCAB);
        assert!(score(&scorer, &other).iter().all(|scored| !scored.greedy), "{name}");
        // a prompt with its padding in another place is a different prompt: some continuations are
        // not greedy
        let mut shifted = greedy;
        shifted.iter_mut().for_each(|r| {
            let first = r.continuation.remove(0);
            r.context.push(first);
        });
        if config.block_length() > 1 {
            let scores = score(&scorer, &shifted);
            assert!(scores.iter().any(|scored| !scored.greedy), "{name}");
        }
    }
}

#[test]
fn scores_do_not_depend_on_the_batch() {
    let device = Device::flex();
    let requests = requests();
    for name in CASES {
        let (model, _) = golden(name, &device);
        let scorer = Scorer::new(&model);
        let mut last = (0, 0);
        let progress = &mut |done, total| last = (done, total);
        let together = scorer.score(&requests, progress).unwrap();
        assert_eq!(last, (requests.len() as u64, requests.len() as u64));
        for batch_tokens in [1, 50, 200] {
            let scorer = scorer.clone().with_batch_tokens(batch_tokens).unwrap();
            let scores = score(&scorer, &requests);
            let most = difference(&together, &scores);
            // flex sums products of few rows and of many rows in different orders. Attention
            // without a scale amplifies this rounding to the size of the difference between flex
            // and ndarray (3e-4).
            let tolerance = if name == "cls_cross_attention" { 2e-3 } else { 2e-5 };
            assert!(most < tolerance, "{name}, {batch_tokens} tokens: {most}");
            assert!(together.iter().zip(&scores).all(|(a, b)| a.greedy == b.greedy), "{name}");
        }
    }
}

#[test]
fn log_probabilities_of_a_window_are_the_negated_training_losses() {
    let device = Device::flex();
    for name in CASES {
        let (model, config) = golden(name, &device);
        let (l, window) = (config.block_length(), ids(48, 7));
        let request = Request { context: window[..l].to_vec(), continuation: window[l..].to_vec() };
        let scorer = Scorer::new(&model);
        let scored = score(&scorer, &[request]).remove(0);
        let ids: Vec<i64> = window.iter().map(|&id| i64::from(id)).collect();
        let losses = model.losses(&TokenBatch {
            ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 48]), &device),
            is_token: PaddingMask::full(),
            block_length: l,
        });
        let losses: Vec<f64> = losses.losses.into_data().iter::<f64>().collect();
        assert_eq!(losses.len(), scored.log_probs.len());
        for (loss, log_prob) in losses.iter().zip(&scored.log_probs) {
            assert!((loss + log_prob).abs() < 2e-5, "{name}: {loss}, {log_prob}");
        }
    }
}

#[test]
fn tokens_beyond_the_context_are_cut_from_the_left() {
    let device = Device::flex();
    for name in ["vanilla", "lookup_prefix"] {
        let (model, _) = golden(name, &device);
        let scorer = Scorer::new(&model).with_context(16).unwrap();
        for continuation in [1, 4, 5, 16] {
            let long = Request { context: ids(50, 1), continuation: ids(continuation, 2) };
            // the context and the last target have one token more than the model reads
            let kept = long.context[50 - (17 - continuation)..].to_vec();
            let cut = Request { context: kept, continuation: long.continuation.clone() };
            let wide = scorer.clone().with_context(64).unwrap();
            assert_eq!(
                difference(&score(&scorer, std::slice::from_ref(&long)), &score(&wide, &[cut])),
                0.0
            );
            assert!(
                difference(&score(&scorer, std::slice::from_ref(&long)), &score(&wide, &[long]))
                    > 1e-3
            );
        }
    }
}

#[test]
fn rolling_windows_score_every_token() {
    let device = Device::flex();
    let document = ids(70, 3);
    for name in ["vanilla", "lookup_prefix"] {
        let (model, _) = golden(name, &device);
        let scorer = Scorer::new(&model).with_context(32).unwrap();
        let windows = rolling_windows(&document, scorer.context());
        let scores = score(&scorer, &windows);
        let tokens: usize = scores.iter().map(|scored| scored.log_probs.len()).sum();
        assert_eq!((windows.len(), tokens), (3, 70));
    }
}

#[test]
fn invalid_requests_are_rejected() {
    let device = Device::flex();
    let (model, _) = golden("lookup_prefix", &device);
    let scorer = Scorer::new(&model).with_context(8).unwrap();
    let error = |context: Vec<u32>, continuation: Vec<u32>| {
        scorer.score(&[Request { context, continuation }], &mut |_, _| ()).unwrap_err()
    };
    assert!(matches!(error(vec![], vec![]), EvalError::EmptyContinuation));
    assert!(matches!(error(vec![96], vec![2]), EvalError::TokenId { id: 96, vocab_size: 96 }));
    assert!(matches!(error(vec![2], vec![100]), EvalError::TokenId { id: 100, .. }));
    assert!(matches!(error(vec![2], ids(9, 0)), EvalError::TooLong { tokens: 9, context: 8 }));
    assert!(matches!(scorer.clone().with_context(0), Err(EvalError::Zero("context"))));
    assert!(score(&scorer, &[]).is_empty());
}
