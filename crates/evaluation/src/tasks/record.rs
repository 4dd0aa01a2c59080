//! Items with their scores, as lines of JSON.

use serde::Serialize;

use crate::tasks::evaluate::Evaluation;
use crate::tasks::item::Item;
use crate::tasks::metrics::{ItemScore, chosen};

/// An item with its scores.
#[derive(Serialize)]
struct ItemRecord<'a> {
    checkpoint: &'a str,
    task: &'a str,
    /// Index of the item, from 0.
    item: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    gold: Option<usize>,
    /// The most likely option.
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<usize>,
    /// The most likely option by length.
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen_norm: Option<usize>,
    log_likelihoods: &'a [f64],
    greedy: &'a [bool],
    tokens: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    /// The context of each continuation, or one that all share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contexts: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    continuations: Vec<&'a str>,
}

impl Evaluation {
    /// The items with their scores under the checkpoint called `checkpoint`, one line of JSON each. The text of
    /// a document is not in its line.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
    pub fn records(&self, items: &[Item], checkpoint: &str) -> serde_json::Result<String> {
        let mut lines = String::new();
        for (i, (item, found)) in items.iter().zip(&self.items).enumerate() {
            let ItemScore { log_likelihoods, greedy, tokens } = found;
            let mut record = ItemRecord {
                checkpoint,
                task: &self.task.name,
                item: i,
                gold: None,
                chosen: None,
                chosen_norm: None,
                log_likelihoods,
                greedy,
                tokens,
                words: None,
                bytes: None,
                contexts: Vec::new(),
                continuations: Vec::new(),
            };
            match item {
                Item::Choice { options, gold } => {
                    record.gold = Some(*gold);
                    record.chosen = chosen(options, found, false);
                    record.chosen_norm = chosen(options, found, true);
                    record.contexts = options.iter().map(|option| &option.context[..]).collect();
                    record.contexts.dedup();
                    record.continuations = options.iter().map(|o| &o.continuation[..]).collect();
                }
                Item::Continuation(prompt) => {
                    record.contexts = vec![&prompt.context];
                    record.continuations = vec![&prompt.continuation];
                }
                Item::Document { words, bytes, .. } => {
                    (record.words, record.bytes) = (Some(*words), Some(*bytes));
                }
            }
            lines += &serde_json::to_string(&record)?;
            lines.push('\n');
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::item::{Prompt, question};
    use crate::tasks::task::Task;
    use serde_json::Value;

    #[test]
    fn a_line_has_the_scores_and_the_texts_of_an_item() {
        let items = [
            question("c", &["aaaa".into(), "b".into()], 0).unwrap(),
            Item::Continuation(Prompt { context: "x".into(), continuation: " y".into() }),
            Item::Document { text: "long".into(), words: 1, bytes: 4 },
        ];
        let found = |log_likelihoods: &[f64]| ItemScore {
            log_likelihoods: log_likelihoods.into(),
            greedy: vec![true; log_likelihoods.len()],
            tokens: vec![3; log_likelihoods.len()],
        };
        let evaluation = Evaluation {
            task: Task::Piqa.into(),
            items: vec![found(&[-3.0, -2.0]), found(&[-0.1]), found(&[-9.5])],
            scores: Vec::new(),
            tokens: 12,
        };
        let text = evaluation.records(&items, "run").unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let first = serde_json::json!({
            "checkpoint": "run", "task": "piqa", "item": 0, "gold": 0, "chosen": 1, "chosen_norm": 0,
            "log_likelihoods": [-3.0, -2.0], "greedy": [true, true], "tokens": [3, 3],
            "contexts": ["c"], "continuations": [" aaaa", " b"]
        });
        assert_eq!(lines[0], first);
        assert_eq!(lines[1]["continuations"], serde_json::json!([" y"]));
        assert_eq!((&lines[2]["bytes"], lines[2].get("contexts")), (&4.into(), None));
    }
}
