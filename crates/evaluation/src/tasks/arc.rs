//! ARC.

use std::path::Path;

use serde::Deserialize;

use super::{Item, lines, question};
use crate::EvalError;

/// A question: as published, or in one level with the right choice counted from 0.
#[derive(Deserialize)]
struct Row {
    question: Question,
    choices: Option<Vec<String>>,
    gold: Option<usize>,
    #[serde(rename = "answerKey")]
    answer: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Question {
    Text(String),
    Published { stem: String, choices: Vec<Choice> },
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    label: String,
}

pub(super) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    lines::read_json(path, limit, |row: Row| {
        let (stem, choices, gold) = match row.question {
            Question::Text(stem) => {
                let choices = row.choices.ok_or("missing field `choices`")?;
                (stem, choices, row.gold.ok_or("missing field `gold`")?)
            }
            Question::Published { stem, choices } => {
                let answer = row.answer.ok_or("missing field `answerKey`")?;
                let gold = choices.iter().position(|choice| choice.label == answer);
                let gold = gold.ok_or_else(|| format!("answerKey {answer:?} is no choice"))?;
                (stem, choices.into_iter().map(|choice| choice.text).collect(), gold)
            }
        };
        question(format!("Question: {stem}\nAnswer:"), &choices, gold)
    })
}
