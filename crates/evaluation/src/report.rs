//! The results of a run, for people and for programs.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Evaluation, Score};

/// What was evaluated, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The checkpoint's folder.
    pub checkpoint: String,
    /// "block" or "vanilla".
    pub family: String,
    /// Parameters outside token tables and LM head.
    pub non_embedding_parameters: usize,
    /// Optimizer steps it was trained for.
    pub step: u64,
    /// Tokens of context.
    pub context: usize,
    /// Items a task, at most; none for all.
    pub limit: Option<usize>,
    /// Solved examples in front of each prompt.
    pub shots: usize,
}

/// A task with the time it took.
#[derive(Clone, Debug)]
pub struct Timed {
    /// What was found.
    pub evaluation: Evaluation,
    /// Seconds of computing.
    pub seconds: f64,
}

/// The results of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was evaluated.
    pub setting: Setting,
    /// The tasks, in the order they were asked for.
    pub tasks: Vec<Timed>,
}

impl Report {
    /// One JSON object; scores and standard errors have the harness's names.
    pub fn to_json(&self) -> String {
        let task = |timed: &Timed| {
            let Evaluation { task, items, scores, tokens } = &timed.evaluation;
            let mut entry = Map::new();
            entry.insert("items".into(), json!(items.len()));
            for Score { metric, value, stderr } in scores {
                entry.insert(metric.name().into(), json!(value));
                entry.insert(format!("{}_stderr", metric.name()), json!(stderr));
            }
            entry.insert("tokens".into(), json!(tokens));
            entry.insert("seconds".into(), json!(timed.seconds));
            (task.name().to_string(), Value::Object(entry))
        };
        let mut report = json!(self.setting);
        report["tasks"] = Value::Object(self.tasks.iter().map(task).collect());
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    }

    /// The scores as a table, legible as it stands and in Markdown.
    pub fn table(&self) -> String {
        let title = ["task", "metric", "", "value", "± stderr", "items", "seconds"];
        let mut rows = vec![title.map(String::from)];
        for Timed { evaluation, seconds } in &self.tasks {
            for (i, score) in evaluation.scores.iter().enumerate() {
                let first = |text: String| if i == 0 { text } else { String::new() };
                rows.push([
                    first(evaluation.task.name().into()),
                    score.metric.name().into(),
                    if score.metric.higher_is_better() { "↑" } else { "↓" }.into(),
                    number(score.value),
                    score.stderr.map_or_else(|| "-".into(), number),
                    first(evaluation.items.len().to_string()),
                    first(format!("{seconds:.0}")),
                ]);
            }
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..title.len()).map(|i| width(i).unwrap_or(0).max(2)).collect();
        let mut table = String::new();
        for (i, row) in rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column < 3 {
                    true => write!(table, "| {cell:<width$} "),
                    false => write!(table, "| {cell:>width$} "),
                };
            }
            table.push_str("|\n");
            if i == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let (left, right) = if column < 3 { (":", "-") } else { ("-", ":") };
                    let _ = write!(table, "|{left}{}{right}", "-".repeat(*width));
                }
                table.push_str("|\n");
            }
        }
        table
    }

    /// The setting and the table.
    pub fn to_markdown(&self) -> String {
        let Setting { checkpoint, family, step, context, limit, shots, .. } = &self.setting;
        let parameters = self.setting.non_embedding_parameters;
        let limit = match limit {
            None => "all items".to_string(),
            Some(limit) => format!("the first {limit} items of each task"),
        };
        format!(
            "# Zero-shot tasks\n\n`{checkpoint}`: {family} model, {parameters} non-embedding \
             parameters, step {step}; context {context}, {shots} examples, {limit}.\n\n{}\n\
             Prompts, targets and scores as in the EleutherAI evaluation harness 0.4. `±` is the \
             standard error over items; of a perplexity by bootstrap.\n",
            self.table()
        )
    }
}

/// Four decimals, or fewer of a number that has no room for them.
fn number(value: f64) -> String {
    match value.abs() {
        size if size < 1e6 => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metric, Task};

    fn report() -> Report {
        let evaluation = |task: Task, scores: Vec<Score>| Evaluation {
            task,
            items: Vec::new(),
            scores,
            tokens: 12,
        };
        let score = |metric, value, stderr| Score { metric, value, stderr };
        let piqa =
            vec![score(Metric::Acc, 0.5, Some(0.0123)), score(Metric::AccNorm, 0.25, Some(0.0101))];
        let wikitext = vec![score(Metric::WordPerplexity, 12_345_678.9, None)];
        let timed = |evaluation| Timed { evaluation, seconds: 61.2 };
        Report {
            setting: Setting {
                checkpoint: "runs/a".into(),
                family: "block".into(),
                non_embedding_parameters: 5,
                step: 7,
                context: 2048,
                limit: Some(20),
                shots: 0,
            },
            tasks: vec![
                timed(evaluation(Task::Piqa, piqa)),
                timed(evaluation(Task::Wikitext, wikitext)),
            ],
        }
    }

    #[test]
    fn json_has_the_harness_s_names() {
        let json: Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!(json["tasks"]["piqa"]["acc_norm_stderr"], 0.0101);
        assert_eq!(json["tasks"]["wikitext"]["word_perplexity_stderr"], Value::Null);
        assert_eq!((&json["limit"], &json["family"]), (&json!(20), &json!("block")));
    }

    #[test]
    fn the_table_lines_up() {
        let table = report().table();
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 5, "{table}");
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        assert!(table.contains("| 0.5000 ") && table.contains("1.235e7"), "{table}");
        let markdown = report().to_markdown();
        assert!(markdown.contains("the first 20 items") && markdown.contains(&table));
    }
}
