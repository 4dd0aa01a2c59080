//! The first items of the real task files: log-likelihoods and scores are those of the harness.
//!
//! The texts are not part of this project. The test runs where `BT_EVAL_DATA` names a folder with the
//! task files and `BT_EVAL_TOKENIZER` names the file of the GPT-NeoX tokenizer.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod common;

use std::path::PathBuf;

use block_transformer_evaluation::Scorer;
use block_transformer_evaluation::tasks::{Task, evaluate};
use block_transformer_text::Tokenizer;
use burn::tensor::Device;
use common::{FAMILIES, Found, differences, model, reference, same_metrics};
use serde::Deserialize;

#[derive(Deserialize)]
struct Real {
    context: usize,
    vocab: usize,
    vanilla: Found,
    block: Found,
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
    let device = Device::flex();
    for &task in Task::all() {
        let json = std::fs::read_to_string(reference(&format!("{}.json", task.name()))).unwrap();
        let real: Real = serde_json::from_str(&json).unwrap();
        for family in FAMILIES {
            let found = if family == "vanilla" { &real.vanilla } else { &real.block };
            assert!(same_metrics(task, found), "{found:?}");
            let model = model(family, real.vocab, real.context, &device);
            let scorer = Scorer::new(&model);
            let items = task.load(&data, Some(found.items)).unwrap();
            let evaluation = evaluate(task, &items, &scorer, &tokenizer, &mut |_, _| ()).unwrap();
            let pairs = evaluation.items.iter().zip(&found.log_likelihoods);
            let far = pairs.flat_map(|(item, found)| {
                item.log_likelihoods.iter().zip(found).map(|(a, b)| (a - b).abs())
            });
            let most = far.fold(0.0, f64::max);
            eprintln!("{}, {family}: {} items, {most:.1e}", task.name(), items.len());
            let different = differences(&evaluation, found);
            assert!(different.is_empty(), "{}, {family}: {different:#?}", task.name());
        }
    }
}
