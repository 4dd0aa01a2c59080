//! Results on several tasks, as JSON and Markdown.

use block_transformer_family::Precision;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::score::Alignment;
use crate::table;
use crate::tasks::evaluate::Evaluation;
use crate::tasks::metrics::Score;
use crate::tasks::task::Task;

/// Results of a checkpoint on several tasks.
#[derive(Clone, Debug, Serialize)]
pub struct TaskReport {
    /// The checkpoint's folder.
    pub checkpoint: String,
    /// Name of the model family: "block" or "vanilla".
    pub family: String,
    /// Parameters outside the token tables and the LM head.
    pub non_embedding_parameters: usize,
    /// Optimizer steps that the checkpoint was trained for.
    pub step: u64,
    /// Tokens of context.
    pub context: usize,
    /// The format of the weights.
    pub precision: Precision,
    /// The largest number of items evaluated per task; `None` for all items.
    pub limit: Option<usize>,
    /// Solved examples before each prompt.
    pub shots: usize,
    /// The place of contexts and continuations in blocks.
    #[serde(skip_serializing_if = "is_default")]
    pub alignment: Alignment,
    /// The tasks, in the order of evaluation.
    #[serde(skip)]
    pub tasks: Vec<TimedEvaluation>,
}

fn is_default(alignment: &Alignment) -> bool {
    *alignment == Alignment::default()
}

/// An evaluation with the time it took.
#[derive(Clone, Debug)]
pub struct TimedEvaluation {
    /// The evaluation.
    pub evaluation: Evaluation,
    /// Seconds of encoding and scoring.
    pub seconds: f64,
}

impl TaskReport {
    /// The report as a JSON object. Metrics and standard errors have the harness's names.
    pub fn to_json(&self) -> String {
        let task = |timed: &TimedEvaluation| {
            let Evaluation { task, items, scores, tokens } = &timed.evaluation;
            let mut entry = Map::new();
            entry.insert("items".into(), json!(items.len()));
            for Score { metric, value, stderr } in scores {
                entry.insert(metric.name().into(), json!(value));
                entry.insert(format!("{}_stderr", metric.name()), json!(stderr));
            }
            entry.insert("tokens".into(), json!(tokens));
            entry.insert("seconds".into(), json!(timed.seconds));
            (task.name.clone(), Value::Object(entry))
        };
        let mut report = json!(self);
        report["tasks"] = Value::Object(self.tasks.iter().map(task).collect());
        format!("{report:#}\n")
    }

    /// The metrics as a table, in Markdown that is legible as plain text.
    pub fn table(&self) -> String {
        let head = ["task", "metric", "", "value", "± stderr", "items", "seconds"];
        let mut rows = Vec::new();
        for TimedEvaluation { evaluation, seconds } in &self.tasks {
            for (i, score) in evaluation.scores.iter().enumerate() {
                let once = |text: String| if i == 0 { text } else { String::new() };
                rows.push(vec![
                    once(evaluation.task.name.clone()),
                    score.metric.name().into(),
                    if score.metric.higher_is_better() { "↑" } else { "↓" }.into(),
                    rounded(score.value),
                    score.stderr.map_or_else(|| "-".into(), rounded),
                    once(evaluation.items.len().to_string()),
                    once(format!("{seconds:.0}")),
                ]);
            }
        }
        table::markdown(&head, 3, &rows)
    }

    /// The report as a Markdown document.
    pub fn to_markdown(&self) -> String {
        let Self { checkpoint, family, step, context, limit, shots, alignment, .. } = self;
        let alignment = match alignment {
            Alignment::Generation => String::new(),
            Alignment::Published => ", the published alignment of blocks".into(),
        };
        let parameters = self.non_embedding_parameters;
        let limit = match limit {
            None => "all items".to_string(),
            Some(limit) => format!("the first {limit} items of each task"),
        };
        format!(
            "# {}\n\n`{checkpoint}`: {family} model, {parameters} non-embedding \
             parameters, step {step}; context {context}, {shots} examples{alignment}, {limit}.\n\n{}\n\
             {}`±` is the standard error over items; for a perplexity or a loss, it comes from a bootstrap.\n",
            if *shots == 0 { "Zero-shot tasks" } else { "Few-shot tasks" },
            self.table(),
            match self
                .tasks
                .iter()
                .any(|timed| Task::from_name(&timed.evaluation.task.name).is_ok())
            {
                true => {
                    "Prompts, targets and metrics of the harness's tasks are those of the EleutherAI \
                     evaluation harness 0.4. "
                }
                false => "",
            },
        )
    }
}

/// Formats a value with four decimals, or as a power of ten when it is large.
fn rounded(value: f64) -> String {
    match value.abs() {
        size if size < 1e6 => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::metrics::Metric;

    fn report() -> TaskReport {
        let score = |metric, value, stderr| Score { metric, value, stderr };
        let timed = |task, scores| TimedEvaluation {
            evaluation: Evaluation {
                task: Task::into(task),
                items: Vec::new(),
                scores,
                tokens: 12,
            },
            seconds: 61.2,
        };
        let piqa =
            vec![score(Metric::Acc, 0.5, Some(0.0123)), score(Metric::AccNorm, 0.25, Some(0.0101))];
        let wikitext = vec![score(Metric::WordPerplexity, 12_345_678.9, None)];
        TaskReport {
            checkpoint: "runs/a".into(),
            family: "block".into(),
            non_embedding_parameters: 5,
            step: 7,
            context: 2048,
            precision: Precision::F32,
            limit: Some(20),
            shots: 0,
            alignment: Alignment::Generation,
            tasks: vec![timed(Task::Piqa, piqa), timed(Task::Wikitext, wikitext)],
        }
    }

    #[test]
    fn json_has_the_names_of_the_harness_and_the_columns_of_the_table_are_aligned() {
        let report = report();
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["tasks"]["piqa"]["acc_norm_stderr"], 0.0101);
        assert_eq!(json["tasks"]["wikitext"]["word_perplexity_stderr"], Value::Null);
        assert_eq!((&json["limit"], &json["family"]), (&json!(20), &json!("block")));
        let table = report.table();
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 5, "{table}");
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        assert!(table.contains(" 0.5000 |") && table.contains("1.235e7"), "{table}");
        let markdown = report.to_markdown();
        assert!(markdown.contains("the first 20 items") && markdown.contains(&table));
    }
}
