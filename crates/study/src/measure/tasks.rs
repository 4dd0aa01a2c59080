//! Tasks without examples.

use std::collections::BTreeMap;

use block_transformer_evaluation::tasks::{EncodedTask, Shots, TaskChoice, task_scores};
use serde_json::{Value, json};

use crate::error::StudyError;
use crate::execute::Laboratory;
use crate::measure::Subject;
use crate::measurement::TaskKeys;

/// Measures the scores of every task.
pub(super) fn tasks(
    laboratory: &Laboratory,
    subject: &Subject<'_>,
    keys: &TaskKeys,
) -> Result<Value, StudyError> {
    let checkpoint = subject.checkpoint(laboratory)?;
    let (tokenizer, context) = (checkpoint.tokenizer()?, subject.run.config.context);
    let limit = (keys.limit > 0).then_some(keys.limit);
    let mut tasks = Vec::new();
    for choice in TaskChoice::of_names(&keys.names)? {
        let items = choice.load(&laboratory.settings.eval_data, limit, &Shots::default())?;
        tasks.push(EncodedTask::new(choice.metrics(), items, &tokenizer, context)?);
    }
    let model = checkpoint.load_model(&laboratory.device)?;
    let mut values: BTreeMap<String, BTreeMap<&str, f64>> = BTreeMap::new();
    for (task, scores) in task_scores(&tasks, &model, context)? {
        let scores = scores.iter().map(|score| (score.metric.name(), score.value));
        values.insert(task, scores.collect());
    }
    Ok(json!(values))
}
