//! The small random models of `reference/make.py`, and the results it recorded with them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

use block_transformer_evaluation::tasks::{Evaluation, Metric, Task};
use block_transformer_weights::{HostTensor, Source};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::tensor::Device;
use serde::Deserialize;

/// The results of the harness for a task with a model of one family.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Found {
    pub items: usize,
    /// Scores and standard errors by the harness's names.
    pub scores: std::collections::BTreeMap<String, Option<f64>>,
    /// Log-likelihoods of each item's continuations.
    pub log_likelihoods: Vec<Vec<f64>>,
    pub greedy: Option<Vec<bool>>,
}

/// The largest difference allowed between log-likelihoods of an item, in nats.
pub(crate) const TOLERANCE: f64 = 1e-4;

pub(crate) const FAMILIES: [&str; 2] = ["vanilla", "block"];

pub(crate) fn reference(file: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference")).join(file)
}

/// The model of a family that `make.py` uses.
pub(crate) fn model(family: &str, vocab: usize, context: usize, device: &Device) -> LanguageModel {
    let stack = r#""hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2"#;
    let sizes = format!(r#""vocab_size": {vocab}, "max_position_embeddings": {context}"#);
    let json = match family {
        "vanilla" => format!("{{ {sizes}, {stack} }}"),
        _ => format!(
            r#"{{ {sizes}, "block_length": 4, "block_decoder": {{ {stack} }},
                "embedder": {{ "cls": "lookup", "hidden_size": 8, "projection_method": "concat" }},
                "token_decoder": {{ "cls": "gpt-neo-x", "decoding_strategy": "prefix",
                                    "expansion_ratio": 2, {stack} }} }}"#
        ),
    };
    let config = ModelConfig::from_json(&json, family).unwrap();
    let model = config.init(0, device);
    let mut tensors =
        block_transformer_weights::published_tensors(&model, &config, &Source::Values);
    tensors.iter_mut().for_each(|(name, tensor)| draw(name, tensor));
    // files hold unused tensors too
    for (name, shape) in block_transformer_zoo::PublishedNames::unused(&config) {
        let values = vec![0.0; shape.iter().product()];
        tensors.insert(name, HostTensor { shape, values });
    }
    block_transformer_weights::load(model, &config, tensors, family).unwrap().0
}

/// `weight` of `make.py`: uniform values from a hash of the parameter's name.
fn draw(name: &str, tensor: &mut HostTensor) {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    let mut unit = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0
    };
    let (start, scale) = match tensor.shape[..] {
        [_, columns, ..] => (0.0, (6.75 / columns as f64).sqrt()),
        _ if name.ends_with("weight") => (1.0, 0.2),
        _ => (0.0, 0.2),
    };
    tensor.values.iter_mut().for_each(|value| *value = (start + scale * unit()) as f32);
}

/// The differences between an evaluation and the results of the harness.
pub(crate) fn differences(evaluation: &Evaluation, found: &Found) -> Vec<String> {
    let mut different = Vec::new();
    let pairs = evaluation.items.iter().zip(&found.log_likelihoods);
    for (i, (item, expected)) in pairs.enumerate() {
        let (ours, theirs) = (&item.log_likelihoods, expected);
        // the loss of a document of thousands of tokens is tens of thousands of nats, and the
        // harness sums it in f32
        let far = |(a, b): (&f64, &f64)| (a - b).abs() > TOLERANCE.max(1e-7 * b.abs());
        if ours.len() != theirs.len() || ours.iter().zip(theirs).any(far) {
            different.push(format!("item {i}: {ours:?} and not {theirs:?}"));
        }
        if let Some(greedy) = &found.greedy
            && item.greedy != [greedy[i]]
        {
            different.push(format!("item {i}: greedy {:?}", item.greedy));
        }
    }
    if (evaluation.items.len(), found.log_likelihoods.len()) != (found.items, found.items) {
        different.push(format!("{} items and not {}", evaluation.items.len(), found.items));
    }
    for score in &evaluation.scores {
        let name = score.metric.name();
        let expected = found.scores[name].unwrap();
        let exact = matches!(score.metric, Metric::Acc | Metric::AccNorm);
        let tolerance = if exact { 0.0 } else { 1e-5 * expected };
        if (score.value - expected).abs() > tolerance {
            different.push(format!("{name} {} and not {expected}", score.value));
        }
        let (stderr, expected) = (score.stderr, found.scores[&format!("{name}_stderr")]);
        let near = match (stderr, expected) {
            // the bootstrap of the harness draws other samples
            (Some(a), Some(b)) if score.metric == Metric::Perplexity => (a / b - 1.0).abs() < 0.05,
            (Some(a), Some(b)) => (a - b).abs() <= 1e-12,
            (a, b) => a == b,
        };
        if !near {
            different.push(format!("{name}_stderr {stderr:?} and not {expected:?}"));
        }
    }
    different
}

/// Returns whether the harness reports exactly the metrics of a task.
pub(crate) fn same_metrics(task: Task, found: &Found) -> bool {
    let theirs = found.scores.keys().filter(|name| !name.ends_with("_stderr"));
    let mut ours: Vec<&str> = task.metrics().iter().map(|metric| metric.name()).collect();
    ours.sort_unstable();
    theirs.eq(ours)
}
