//! Task files of ARC.

use std::path::Path;

use serde::Deserialize;

use crate::error::EvalError;
use crate::tasks::item::{Item, question};
use crate::tasks::lines::read_json;

/// A line: either as published, or flat with the index of the correct choice (from 0).
#[derive(Deserialize)]
struct ArcLine {
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

pub(crate) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    read_json(path, limit, |line: ArcLine| {
        let (stem, choices, gold) = match line.question {
            Question::Text(stem) => {
                let choices = line.choices.ok_or("missing field `choices`")?;
                (stem, choices, line.gold.ok_or("missing field `gold`")?)
            }
            Question::Published { stem, choices } => {
                let answer = line.answer.ok_or("missing field `answerKey`")?;
                let gold = choices.iter().position(|choice| choice.label == answer);
                let gold = gold
                    .ok_or_else(|| format!("answerKey {answer:?} is not the label of a choice"))?;
                (stem, choices.into_iter().map(|choice| choice.text).collect(), gold)
            }
        };
        question(&format!("Question: {stem}\nAnswer:"), &choices, gold)
    })
}
