//! A few made-up items a task, tokenized by bytes: prompts, log-likelihoods and scores are the
//! harness's.

mod common;

use std::collections::BTreeMap;

use block_transformer_evaluation::{
    Item, Prompt, Request, Requests, Scorer, Task, conclude, evaluate, requests,
};
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
fn prompts_are_the_harness_s() {
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
fn log_likelihoods_and_scores_are_the_harness_s() {
    let (made_up, device) = (read(), Device::flex());
    for family in FAMILIES {
        let (model, config) = model(family, made_up.vocab, made_up.context, &device);
        for batch_tokens in [Scorer::BATCH_TOKENS, 300] {
            let scorer = Scorer::new(&model, &config, &device).unwrap();
            let scorer = scorer.with_batch_tokens(batch_tokens).unwrap();
            for &task in Task::all() {
                let found = made_up.tasks[task.name()].family(family);
                assert!(same_metrics(task, found), "{found:?}");
                let items = load(task);
                let done = |_| ();
                let evaluation = evaluate(task, &items, &scorer, &Tokenizer::Bytes, done).unwrap();
                let different = differences(&evaluation, found);
                assert!(different.is_empty(), "{family}, {}: {different:#?}", task.name());
            }
        }
    }
}

/// The comparison is able to fail: every mistake one might make shows in both families and, where
/// it can show, in every task.
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
        let (model, config) = model(family, made_up.vocab, made_up.context, &device);
        let scorer = Scorer::new(&model, &config, &device).unwrap();
        for &task in Task::all() {
            let items = load(task);
            let right = requests(&items, &Tokenizer::Bytes, scorer.context()).unwrap();
            let found = made_up.tasks[task.name()].family(family);
            let different = |requests: &Requests| {
                let scored = scorer.score(&requests.requests, |_| ()).unwrap();
                differences(&conclude(task, &items, requests, &scored), found)
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
