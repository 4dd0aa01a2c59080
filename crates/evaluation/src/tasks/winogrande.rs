//! WinoGrande, by partial evaluation (Trinh and Le, arXiv 1806.02847): each option is put where the
//! blank is, and what follows it is scored.

use std::path::Path;

use serde::Deserialize;

use super::{DELIMITER, Item, lines};
use crate::encode::Prompt;
use crate::{EvalError, python};

#[derive(Deserialize)]
struct Row {
    sentence: String,
    option1: String,
    option2: String,
    answer: String,
}

pub(super) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    lines::read_json(path, limit, |row: Row| {
        let Some((before, after)) = row.sentence.split_once('_') else {
            return Err("the sentence has no blank `_`".into());
        };
        let gold = match row.answer.as_str() {
            "1" => 0,
            "2" => 1,
            other => return Err(format!("the answer must be 1 or 2, not {other:?}")),
        };
        let continuation = format!("{DELIMITER}{}", python::strip(after));
        let option = |option: String| Prompt {
            context: format!("{before}{option}"),
            continuation: continuation.clone(),
        };
        Ok(Item::Choice { options: vec![option(row.option1), option(row.option2)], gold })
    })
}
