//! Compares prompts, log-likelihoods and scores with recorded results of the harness, for a few
//! made-up items per task, tokenized by bytes, and for the first items of the real task files.
//! `reference/make.py` recorded the results with the small random models that are built here.
//!
//! The real texts are not part of this project. Their test runs where `BT_EVAL_DATA` names a folder
//! with the task files and `BT_EVAL_TOKENIZER` names the file of the GPT-NeoX tokenizer.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use block_transformer_evaluation::tasks::{
    Evaluation, Item, ItemRequests, Metric, Prompt, Task, evaluate,
};
use block_transformer_evaluation::{BATCH_TOKENS, Request, Scorer};
use block_transformer_testing::shape;
use block_transformer_text::Tokenizer;
use block_transformer_weights::{HostTensor, Source};
use block_transformer_zoo::{FamilyConfig, LanguageModel};
use burn::tensor::Device;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct MadeUp {
    context: usize,
    vocab: usize,
    tasks: BTreeMap<String, Recorded>,
}

#[derive(Deserialize)]
struct Real {
    context: usize,
    vocab: usize,
    #[serde(flatten)]
    recorded: Recorded,
}

/// The results of the harness for a task.
#[derive(Deserialize)]
struct Recorded {
    vanilla: Found,
    block: Found,
    /// The texts of each request of each made-up item.
    #[serde(default)]
    prompts: Vec<Vec<Vec<String>>>,
}

impl Recorded {
    fn family(&self, name: &str) -> &Found {
        if name == "vanilla" { &self.vanilla } else { &self.block }
    }
}

/// The results of the harness for a task with a model of one family.
#[derive(Deserialize)]
struct Found {
    items: usize,
    /// Scores and standard errors by the harness's names.
    scores: BTreeMap<String, Option<f64>>,
    /// Log-likelihoods of each item's continuations.
    log_likelihoods: Vec<Vec<f64>>,
    greedy: Option<Vec<bool>>,
}

/// The largest difference allowed between log-likelihoods of an item, in nats.
const TOLERANCE: f64 = 1e-4;

const FAMILIES: [&str; 2] = ["vanilla", "block"];

fn reference(file: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference")).join(file)
}

fn read<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(reference(file)).unwrap()).unwrap()
}

/// The scorer with the model of a family that `make.py` uses.
fn scorer(family: &str, vocab: usize, context: usize) -> Scorer<LanguageModel> {
    let shape = shape(if family == "vanilla" { family } else { "prefix" });
    let config = shape.with_vocab_size(vocab);
    let model = config.init(0, &Device::flex());
    let mut tensors = block_transformer_weights::published_tensors(&model, &config, Source::Values);
    tensors.iter_mut().for_each(|(name, tensor)| draw(name, tensor));
    // files hold unused tensors too
    for (name, shape) in block_transformer_zoo::PublishedNames::unused(&config) {
        let values = vec![0.0; shape.iter().product()];
        tensors.insert(name, HostTensor { shape, values });
    }
    let (model, _) = block_transformer_weights::load(model, &config, &tensors, family).unwrap();
    Scorer::new(&model).with_context(context).unwrap()
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
fn differences(evaluation: &Evaluation, found: &Found) -> Vec<String> {
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
    let theirs = found.scores.keys().filter(|name| !name.ends_with("_stderr"));
    let mut ours: Vec<&str> = evaluation.scores.iter().map(|score| score.metric.name()).collect();
    ours.sort_unstable();
    if !theirs.eq(ours) {
        different.push("other metrics".into());
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

fn load(task: Task) -> Vec<Item> {
    task.load(&reference("made-up"), None).unwrap()
}

/// The tasks whose results `make.py` has recorded. The prompts of SciQ, which it can record too, are compared with
/// written ones in the module of the task.
const RECORDED: [Task; 6] =
    [Task::HellaSwag, Task::Piqa, Task::ArcEasy, Task::Lambada, Task::Wikitext, Task::Winogrande];

#[test]
fn prompts_are_those_of_the_harness() {
    let made_up: MadeUp = read("made-up.json");
    for task in RECORDED {
        let pair = |prompt: &Prompt| vec![prompt.context.clone(), prompt.continuation.clone()];
        let texts: Vec<Vec<Vec<String>>> = load(task)
            .iter()
            .map(|item| match item {
                Item::Choice { options, .. } => options.iter().map(pair).collect(),
                Item::Continuation(prompt) => vec![pair(prompt)],
                Item::Document { text, .. } => vec![vec![text.clone()]],
            })
            .collect();
        assert_eq!(texts, made_up.tasks[task.name()].prompts, "{}", task.name());
    }
}

#[test]
fn log_likelihoods_and_scores_are_those_of_the_harness() {
    let made_up: MadeUp = read("made-up.json");
    for family in FAMILIES {
        let scorer = scorer(family, made_up.vocab, made_up.context);
        for batch_tokens in [BATCH_TOKENS, 300] {
            let scorer = scorer.clone().with_batch_tokens(batch_tokens).unwrap();
            for task in RECORDED {
                let found = made_up.tasks[task.name()].family(family);
                let items = load(task);
                let mut calls = Vec::new();
                let progress = &mut |done, total| calls.push((done, total));
                let evaluation = evaluate(task, &items, &scorer, &Tokenizer::Bytes, progress);
                let evaluation = evaluation.unwrap();
                let &(done, total) = calls.last().unwrap();
                assert!(done == total && calls.is_sorted(), "{calls:?}");
                let different = differences(&evaluation, found);
                assert!(different.is_empty(), "{family}, {}: {different:#?}", task.name());
            }
        }
    }
}

/// The comparison can fail: every likely mistake is noticed in both families, in every task that it
/// affects.
#[test]
fn mistakes_are_noticed() {
    type Mistake = fn(&mut Request);
    const MISTAKES: [(&str, Mistake); 5] = [
        ("targets shifted by one", |request| {
            let first = request.continuation.remove(0);
            request.context.push(first);
            request.continuation.push(2);
        }),
        ("a prompt padded on its right", |request| request.context.push(1)),
        ("a prompt padded with EOS on its left", |request| request.context.insert(0, 0)),
        ("the first token dropped", |request| {
            request.context.remove(0);
        }),
        ("the last token not counted", |request| {
            request.continuation.pop();
        }),
    ];
    let made_up: MadeUp = read("made-up.json");
    for family in FAMILIES {
        let scorer = scorer(family, made_up.vocab, made_up.context);
        for task in RECORDED {
            let items = load(task);
            let right = ItemRequests::new(&items, &Tokenizer::Bytes, scorer.context()).unwrap();
            let found = made_up.tasks[task.name()].family(family);
            let different = |requests: &ItemRequests| {
                let scored = scorer.score(&requests.requests, &mut |_, _| ()).unwrap();
                differences(&requests.evaluation(task, &items, &scored), found)
            };
            assert!(different(&right).is_empty());
            for (mistake, make) in MISTAKES {
                let mut wrong = right.clone();
                wrong.requests.iter_mut().filter(|r| r.continuation.len() > 1).for_each(make);
                assert!(!different(&wrong).is_empty(), "{family}, {}: {mistake}", task.name());
            }
            // a window dropped
            let mut wrong = right.clone();
            wrong.requests.pop();
            *wrong.counts.last_mut().unwrap() -= 1;
            assert!(!different(&wrong).is_empty(), "{family}, {}: a window dropped", task.name());
        }
    }
}

#[test]
fn real_items_score_as_in_the_harness() {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(data), Some(tokenizer)) = (variable("BT_EVAL_DATA"), variable("BT_EVAL_TOKENIZER"))
    else {
        eprintln!("skipped: BT_EVAL_DATA and BT_EVAL_TOKENIZER are not set");
        return;
    };
    let tokenizer = Tokenizer::load(&tokenizer).unwrap();
    for task in RECORDED {
        let real: Real = read(&format!("{}.json", task.name()));
        for family in FAMILIES {
            let found = real.recorded.family(family);
            let items = task.load(&data, Some(found.items)).unwrap();
            let scorer = scorer(family, real.vocab, real.context);
            let evaluation = evaluate(task, &items, &scorer, &tokenizer, &mut |_, _| ()).unwrap();
            let different = differences(&evaluation, found);
            assert!(different.is_empty(), "{}, {family}: {different:#?}", task.name());
        }
    }
}
