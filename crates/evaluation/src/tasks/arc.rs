//! ARC.

use std::path::Path;

use serde::Deserialize;

use super::{Item, lines, question};
use crate::EvalError;

/// A question: as published, or in one level with the right choice counted from 0.
#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Published {
        question: Question,
        #[serde(rename = "answerKey")]
        answer: String,
    },
    Flat {
        question: String,
        choices: Vec<String>,
        gold: usize,
    },
}

#[derive(Deserialize)]
struct Question {
    stem: String,
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    label: String,
}

pub(super) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    lines::read_json(path, limit, |row: Row| {
        let (stem, choices, gold) = match row {
            Row::Flat { question, choices, gold } => (question, choices, gold),
            Row::Published { question: Question { stem, choices }, answer } => {
                let gold = choices.iter().position(|choice| choice.label == answer);
                let gold = gold.ok_or_else(|| format!("answerKey {answer:?} is no choice"))?;
                (stem, choices.into_iter().map(|choice| choice.text).collect(), gold)
            }
        };
        question(format!("Question: {stem}\nAnswer:"), &choices, gold)
    })
}
