//! Task files of WinoGrande, by partial evaluation (Trinh and Le, arXiv 1806.02847): each option
//! replaces the blank, and the rest of the sentence is scored.

use std::path::Path;

use serde::Deserialize;

use crate::error::EvalError;
use crate::tasks::item::{DELIMITER, Item, Prompt};
use crate::tasks::lines::read_json;
use crate::tasks::python;

#[derive(Deserialize)]
struct WinograndeLine {
    sentence: String,
    option1: String,
    option2: String,
    answer: String,
}

pub(crate) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    read_json(path, limit, |line: WinograndeLine| {
        let Some((before, after)) = line.sentence.split_once('_') else {
            return Err("the sentence has no blank `_`".into());
        };
        let gold = match line.answer.as_str() {
            "1" => 0,
            "2" => 1,
            other => return Err(format!("the answer must be 1 or 2, not {other:?}")),
        };
        let continuation = format!("{DELIMITER}{}", python::strip(after));
        let option = |option: String| Prompt {
            context: format!("{before}{option}"),
            continuation: continuation.clone(),
        };
        Ok(Item::Choice { options: vec![option(line.option1), option(line.option2)], gold })
    })
}
