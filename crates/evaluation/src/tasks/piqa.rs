//! Task files of PIQA.

use std::path::Path;

use serde::Deserialize;

use crate::error::EvalError;
use crate::tasks::item::{Item, question};
use crate::tasks::lines::{read, read_json};

#[derive(Deserialize)]
struct PiqaLine {
    goal: String,
    sol1: String,
    sol2: String,
}

pub(crate) fn load(path: &Path, labels: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    let golds: Vec<usize> = read(labels, limit, |line| match line.trim() {
        "0" => Ok(0),
        "1" => Ok(1),
        other => Err(format!("a label must be 0 or 1, not {other:?}")),
    })?;
    let mut rest = golds.iter();
    let items = read_json(path, limit, |line: PiqaLine| {
        let gold = rest.next().ok_or_else(|| {
            format!("no label for this question; {} has {} labels", labels.display(), golds.len())
        })?;
        question(&format!("Question: {}\nAnswer:", line.goal), &[line.sol1, line.sol2], *gold)
    })?;
    match rest.len() {
        0 => Ok(items),
        more => {
            let reason = format!("{more} more labels than questions in {}", path.display());
            Err(EvalError::content(labels, reason))
        }
    }
}
