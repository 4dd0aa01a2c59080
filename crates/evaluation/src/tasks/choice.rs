//! The tasks that names on a command line choose, with their items.

use std::path::{Path, PathBuf};

use crate::error::EvalError;
use crate::tasks::evaluate::TaskMetrics;
use crate::tasks::item::Item;
use crate::tasks::own::OwnTask;
use crate::tasks::shots::Examples;
use crate::tasks::task::Task;

/// A task of the harness or of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskChoice {
    /// A task of the harness.
    Harness(Task),
    /// A task of a TOML file.
    Own(OwnTask),
}

/// Solved examples before each prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shots {
    /// Number of examples.
    pub count: usize,
    /// File of the examples; `None` for the usual file of the task.
    pub from: Option<PathBuf>,
}

impl TaskChoice {
    /// The tasks of `names`, each once: names of tasks, and paths of TOML files with tasks (`.toml`).
    ///
    /// # Errors
    /// When there is no such task, a file is invalid, or two tasks have the same name.
    pub fn of_names(names: &[String]) -> Result<Vec<Self>, EvalError> {
        let mut tasks: Vec<Self> = Vec::new();
        for name in names {
            let path = Path::new(name.trim());
            let named: Vec<Self> = match path.extension().is_some_and(|e| e == "toml") {
                true => OwnTask::read(path)?.into_iter().map(Self::Own).collect(),
                false => vec![Self::Harness(Task::from_name(name)?)],
            };
            for task in named {
                if tasks.contains(&task) {
                    continue;
                }
                let metrics = task.metrics();
                if tasks.iter().any(|other| other.metrics().name == metrics.name) {
                    return Err(EvalError::SameName(metrics.name));
                }
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// The name and the metrics.
    pub fn metrics(&self) -> TaskMetrics {
        match self {
            Self::Harness(task) => (*task).into(),
            Self::Own(own) => own.task.clone(),
        }
    }

    /// The first `limit` items, or all, with examples before each. The files of tasks of the harness are in
    /// `data`.
    ///
    /// # Errors
    /// When a file is missing or invalid, or has too few examples.
    pub fn load(
        &self,
        data: &Path,
        limit: Option<usize>,
        shots: &Shots,
    ) -> Result<Vec<Item>, EvalError> {
        let mut items = match self {
            Self::Harness(task) => task.load(data, limit)?,
            Self::Own(own) => own.load(limit)?,
        };
        if shots.count > 0 {
            let from = shots.from.as_deref();
            let examples: Examples = match self {
                Self::Harness(task) => task.examples(data, from)?,
                Self::Own(own) => own.examples(from)?,
            };
            examples.put_before(&mut items, shots.count)?;
        }
        Ok(items)
    }
}
