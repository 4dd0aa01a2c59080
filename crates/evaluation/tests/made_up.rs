//! A few made-up items per task, tokenized by bytes: prompts, log-likelihoods and scores are those
//! of the harness.

mod common;

use std::collections::BTreeMap;

use block_transformer_evaluation::tasks::{Item, ItemRequests, Prompt, Task, evaluate};
use block_transformer_evaluation::{BATCH_TOKENS, Request, Scorer};
use block_transformer_text::Tokenizer;
use burn::tensor::Device;
use common::{FAMILIES, Found, differences, model, reference, same_metrics};
use serde::Deserialize;

#[derive(Deserialize)]
struct MadeUp {
    context: usize,
    vocab: usize,
    tasks: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    vanilla: Found,
    block: Found,
    /// The texts of each request of each item.
    prompts: Vec<Vec<Vec<String>>>,
}

impl Entry {
    fn family(&self, name: &str) -> &Found {
        if name == "vanilla" { &self.vanilla } else { &self.block }
    }
}

fn read() -> MadeUp {
    let json = std::fs::read_to_string(reference("made-up.json")).unwrap();
    serde_json::from_str(&json).unwrap()
}

fn load(task: Task) -> Vec<Item> {
    task.load(&reference("made-up"), None).unwrap()
}

#[test]
fn prompts_are_those_of_the_harness() {
    let made_up = read();
    for &task in Task::all() {
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
    let (made_up, device) = (read(), Device::flex());
    for family in FAMILIES {
        let model = model(family, made_up.vocab, made_up.context, &device);
        for batch_tokens in [BATCH_TOKENS, 300] {
            let scorer = Scorer::new(&model).with_batch_tokens(batch_tokens).unwrap();
            for &task in Task::all() {
                let found = made_up.tasks[task.name()].family(family);
                assert!(same_metrics(task, found), "{found:?}");
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
    let (made_up, device) = (read(), Device::flex());
    for family in FAMILIES {
        let model = model(family, made_up.vocab, made_up.context, &device);
        let scorer = Scorer::new(&model);
        for &task in Task::all() {
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
