//! PIQA.

use std::path::Path;

use serde::Deserialize;

use super::{Item, lines, question};
use crate::EvalError;

#[derive(Deserialize)]
struct Row {
    goal: String,
    sol1: String,
    sol2: String,
}

pub(super) fn load(path: &Path, labels: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    let golds: Vec<usize> = lines::read(labels, limit, |line| match line.trim() {
        "0" => Ok(0),
        "1" => Ok(1),
        other => Err(format!("a label must be 0 or 1, not {other:?}")),
    })?;
    let mut rest = golds.iter();
    let items = lines::read_json(path, limit, |row: Row| {
        let gold = rest.next().ok_or_else(|| {
            format!("no label for it; {} has {} labels", labels.display(), golds.len())
        })?;
        question(format!("Question: {}\nAnswer:", row.goal), &[row.sol1, row.sol2], *gold)
    })?;
    match rest.len() {
        0 => Ok(items),
        more => Err(EvalError::File {
            path: labels.into(),
            reason: format!("{more} labels more than {} has questions", path.display()),
        }),
    }
}
