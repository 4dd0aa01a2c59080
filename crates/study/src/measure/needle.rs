//! Needles in a haystack of the validation text.

use std::collections::BTreeMap;

use block_transformer_evaluation::Scorer;
use block_transformer_evaluation::needle::{
    Haystack, NeedleCell, NeedleGrid, NeedleSettings, needle_metrics,
};
use block_transformer_evaluation::tasks::{EncodedTask, TaskSession};
use block_transformer_zoo::Family;
use serde_json::{Value, json};

use crate::error::StudyError;
use crate::execute::Laboratory;
use crate::measure::Subject;
use crate::measurement::NeedleKeys;

/// Tokens of the question after a text, at most.
const QUESTION: usize = 256;

/// Measures the accuracy by length and depth.
pub(super) fn needle(
    laboratory: &Laboratory,
    subject: &Subject<'_>,
    keys: &NeedleKeys,
) -> Result<Value, StudyError> {
    let checkpoint = subject.checkpoint(laboratory)?;
    let tokenizer = checkpoint.tokenizer()?;
    let Some(text) = &laboratory.settings.validation else {
        return Err(StudyError::NoCorpus("a validation text, in which needles are hidden".into()));
    };
    let settings = NeedleSettings {
        lengths: keys.lengths.clone(),
        depths: keys.depths.clone(),
        samples: keys.samples,
        options: keys.options,
        seed: 0,
    };
    let items = Haystack::read(text)?.items(&settings, &tokenizer)?;
    let context = keys.lengths.iter().max().unwrap_or(&0) + QUESTION;
    let task = EncodedTask::new(needle_metrics(), items, &tokenizer, context)?;
    let model = checkpoint.load_model(&laboratory.device)?.prepared();
    let scorer = Scorer::new(&model).with_context(context)?;
    let found = TaskSession::in_memory().evaluate(&task, &scorer, &mut |_, _| ())?;
    let grid = NeedleGrid::new("", &settings, &task.items, &found.evaluation);
    let cells: Vec<Value> = grid
        .cells
        .iter()
        .map(|cell| json!({ "length": cell.length, "depth": cell.depth, "acc": cell.acc, "nats": cell.loss }))
        .collect();
    let count = grid.cells.len() as f64;
    // the mean accuracy over the cells of a length, and over those of a depth
    let mean = |of: &dyn Fn(&NeedleCell) -> bool| {
        let accuracies: Vec<f64> =
            grid.cells.iter().filter(|cell| of(cell)).map(|cell| cell.acc).collect();
        accuracies.iter().sum::<f64>() / accuracies.len() as f64
    };
    let by_length =
        keys.lengths.iter().map(|&length| (length, mean(&|cell| cell.length == length)));
    let by_depth = keys.depths.iter().map(|&depth| (depth, mean(&|cell| cell.depth == depth)));
    Ok(json!({
        "acc": grid.cells.iter().map(|cell| cell.acc).sum::<f64>() / count,
        "nats": grid.cells.iter().map(|cell| cell.loss).sum::<f64>() / count,
        "guessing": 1.0 / keys.options as f64,
        "by_length": by_length.collect::<BTreeMap<_, _>>(),
        "by_depth": by_depth.collect::<BTreeMap<_, _>>(),
        "cells": cells,
    }))
}
