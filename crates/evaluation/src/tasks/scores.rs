//! Scores of a model on several tasks, such as a model in training.

use block_transformer_family::Family;

use crate::error::EvalError;
use crate::score::Scorer;
use crate::tasks::metrics::Score;
use crate::tasks::session::{EncodedTask, TaskSession};

/// Scores `model` on `tasks`, which were encoded for `context` tokens of context: for each task its name and its
/// metrics. The values are those of [`evaluate`](crate::tasks::evaluate) with a prepared model. All values of a
/// task are not a number if the logits of the model are not finite.
///
/// # Errors
/// When a continuation is longer than the context, or the device fails.
pub fn task_scores<M: Family>(
    tasks: &[EncodedTask],
    model: &M,
    context: usize,
) -> Result<Vec<(String, Vec<Score>)>, EvalError> {
    let model = model.valid().prepared();
    let scorer = Scorer::new(&model).with_context(context)?;
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        let timed = TaskSession::in_memory().evaluate(task, &scorer, &mut |_, _| ());
        let scores = match timed {
            Ok(timed) => timed.evaluation.scores,
            Err(EvalError::NotFinite) => {
                let nothing = |&metric| Score { metric, value: f64::NAN, stderr: None };
                task.task.metrics.iter().map(nothing).collect()
            }
            Err(error) => return Err(error),
        };
        all.push((task.task.name.clone(), scores));
    }
    Ok(all)
}
