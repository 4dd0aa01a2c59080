//! `--eval-every`

use anyhow::{Context, Error, Result};
use block_transformer_datasets::task_file;
use block_transformer_evaluation::tasks::{EncodedTask, Shots, TaskChoice, task_scores};
use block_transformer_text::Tokenizer;
use block_transformer_training::{EvaluationScore, TrainConfig, TrainingRun};

use super::flags::Origin;
use crate::commands::prepare::with_remedy;
use crate::progress::progress;

/// The evaluations of a run.
pub(super) struct Evaluations {
    tasks: Vec<EncodedTask>,
    context: usize,
}

impl Evaluations {
    /// Reads and encodes the items, so that a run with a missing file does not begin. `None` without evaluations.
    pub(super) fn load(
        config: &TrainConfig,
        origin: &Origin,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Self>> {
        if config.eval_every == 0 {
            return Ok(None);
        }
        let of_data = || format!("{} {}", origin.of("eval_data"), config.eval_data.display());
        let (data, context) = (&config.eval_data, config.context);
        let limit = (config.eval_limit > 0).then_some(config.eval_limit);
        let mut tasks = Vec::new();
        for choice in choices(config, origin)? {
            if let TaskChoice::Harness(task) = &choice {
                for file in task.files().iter().filter(|file| !data.join(file.name).exists()) {
                    task_file(file, data, &mut progress(file.name)).map_err(|error| {
                        let remedy = "give --eval-data the folder it is in, or leave out the task";
                        with_remedy(error, &format!("{remedy} {}", task.name()))
                    })?;
                }
            }
            let items = choice.load(data, limit, &Shots::default()).with_context(of_data)?;
            let encoded = EncodedTask::new(choice.metrics(), items, tokenizer, context);
            let encoded = encoded.with_context(of_data)?;
            encoded.check(context).map_err(|error| {
                let name = choice.metrics().name;
                Error::new(error).context(format!("{} {context}, {name}", origin.of("context")))
            })?;
            tasks.push(encoded);
        }
        Ok(Some(Self { tasks, context }))
    }

    /// The run with these evaluations.
    pub(super) fn of(self, run: TrainingRun) -> TrainingRun {
        run.evaluate(move |model| {
            let scores = task_scores(&self.tasks, model, self.context)?;
            let rows = scores.into_iter().flat_map(|(task, scores)| {
                scores.into_iter().map(move |score| EvaluationScore {
                    task: task.clone(),
                    metric: score.metric.name().into(),
                    value: score.value,
                    stderr: score.stderr,
                })
            });
            Ok(rows.collect())
        })
    }
}

/// The tasks of the configuration.
pub(super) fn choices(config: &TrainConfig, origin: &Origin) -> Result<Vec<TaskChoice>> {
    TaskChoice::of_names(&config.eval_tasks).with_context(|| origin.of("eval_tasks"))
}
