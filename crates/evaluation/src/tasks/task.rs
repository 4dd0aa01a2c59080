//! The tasks: the files they read and the metrics they report.

use std::path::{Path, PathBuf};

use block_transformer_datasets::tasks::{self, TaskFile};
use block_transformer_files::nearest;

use crate::error::EvalError;
use crate::tasks::item::Item;
use crate::tasks::metrics::Metric;
use crate::tasks::shots::Examples;
use crate::tasks::{arc, hellaswag, lambada, piqa, sciq, wikitext, winogrande};

/// A task of the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// HellaSwag: choose one of four endings of a text (Zellers et al., arXiv 1905.07830).
    HellaSwag,
    /// PIQA: choose one of two ways to reach a goal (Bisk et al., arXiv 1911.11641).
    Piqa,
    /// ARC, the easy set: multiple-choice questions about science (Clark et al., arXiv 1803.05457).
    ArcEasy,
    /// LAMBADA: predict the last word of a passage (Paperno et al., arXiv 1606.06031), in OpenAI's
    /// version of the text.
    Lambada,
    /// WikiText-2: perplexity of whole articles (Merity et al., arXiv 1609.07843).
    Wikitext,
    /// WinoGrande: choose one of two nouns to fill a blank (Sakaguchi et al., arXiv 1907.10641).
    /// The options are part of the contexts, and the text after them is scored.
    Winogrande,
    /// SciQ: multiple-choice questions about science, each after a text that supports the answer (Welbl et al.,
    /// arXiv 1707.06209).
    Sciq,
}

impl Task {
    /// All tasks, in the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::HellaSwag,
        Self::Piqa,
        Self::ArcEasy,
        Self::Lambada,
        Self::Wikitext,
        Self::Winogrande,
        Self::Sciq,
    ];

    /// The name of the task.
    pub fn name(self) -> &'static str {
        match self {
            Self::HellaSwag => "hellaswag",
            Self::Piqa => "piqa",
            Self::ArcEasy => "arc-easy",
            Self::Lambada => "lambada",
            Self::Wikitext => "wikitext",
            Self::Winogrande => "winogrande",
            Self::Sciq => "sciq",
        }
    }

    /// Finds a task by its name or by the harness's name for it.
    ///
    /// # Errors
    /// When there is no such task; the error suggests the most similar name.
    pub fn from_name(name: &str) -> Result<Self, EvalError> {
        let plain = name.trim().to_lowercase().replace('_', "-");
        let plain = plain.strip_suffix("-openai").unwrap_or(&plain);
        Self::ALL.into_iter().find(|task| task.name() == plain).ok_or_else(|| {
            EvalError::UnknownTask {
                name: name.into(),
                nearest: nearest(plain, Self::ALL.map(Self::name)).unwrap_or_default().into(),
                known: Self::ALL.map(Self::name).join(", "),
            }
        })
    }

    /// The files that the task is read from.
    pub fn files(self) -> &'static [TaskFile] {
        match self {
            Self::HellaSwag => &[tasks::HELLASWAG],
            Self::Piqa => &[tasks::PIQA, tasks::PIQA_LABELS],
            Self::ArcEasy => &[tasks::ARC_EASY],
            Self::Lambada => &[tasks::LAMBADA],
            Self::Wikitext => &[tasks::WIKITEXT],
            Self::Winogrande => &[tasks::WINOGRANDE],
            Self::Sciq => &[tasks::SCIQ],
        }
    }

    /// The metrics that the harness reports for the task.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::HellaSwag | Self::Piqa | Self::ArcEasy | Self::Sciq => {
                &[Metric::Acc, Metric::AccNorm]
            }
            Self::Lambada => &[Metric::Perplexity, Metric::Acc],
            Self::Wikitext => {
                &[Metric::WordPerplexity, Metric::BytePerplexity, Metric::BitsPerByte]
            }
            Self::Winogrande => &[Metric::Acc],
        }
    }

    /// Loads the first `limit` items of the task from its files in `dir`, or all items.
    ///
    /// # Errors
    /// When a file is missing or invalid; the error names the file and the line.
    pub fn load(self, dir: &Path, limit: Option<usize>) -> Result<Vec<Item>, EvalError> {
        self.read(&dir.join(self.files()[0].name), limit)
    }

    /// The name of the file of examples in the folder of task files, and whether one more example is drawn than
    /// is used; `None` if the task has no examples.
    ///
    /// The harness draws examples from the training split, and from the test split of a task that has only this
    /// one.
    fn examples_file(self) -> Option<(&'static str, bool)> {
        match self {
            Self::HellaSwag => Some(("hellaswag_train.jsonl", true)),
            Self::Piqa => Some(("piqa_train.jsonl", true)),
            Self::ArcEasy => Some(("ARC-Easy-train.jsonl", false)),
            Self::Lambada => Some((self.files()[0].name, false)),
            Self::Winogrande => Some(("winogrande_xl_train.jsonl", true)),
            Self::Sciq => Some(("sciq_train.json", false)),
            Self::Wikitext => None,
        }
    }

    /// The examples of the task, from `file` or from the usual file in `dir`.
    pub(crate) fn examples(self, dir: &Path, file: Option<&Path>) -> Result<Examples, EvalError> {
        let (name, one_more) = self.examples_file().ok_or(EvalError::NoExamples)?;
        let file = file.map_or_else(|| dir.join(name), Path::to_path_buf);
        if !file.is_file() {
            return Err(EvalError::ExamplesFile { task: self.name().into(), path: file });
        }
        Ok(Examples { pool: self.read(&file, None)?, file, one_more })
    }

    /// The first `limit` items of the file `path`, or all.
    fn read(self, path: &Path, limit: Option<usize>) -> Result<Vec<Item>, EvalError> {
        let limit = limit.unwrap_or(usize::MAX);
        let items = match self {
            Self::HellaSwag => hellaswag::load(path, limit)?,
            Self::Piqa => piqa::load(path, &labels(path), limit)?,
            Self::ArcEasy => arc::load(path, limit)?,
            Self::Lambada => lambada::load(path, limit)?,
            Self::Wikitext => wikitext::load(path, limit)?,
            Self::Winogrande => winogrande::load(path, limit)?,
            Self::Sciq => sciq::load(path, limit)?,
        };
        match items.is_empty() {
            true => Err(EvalError::content(path, "the file has no items")),
            false => Ok(items),
        }
    }
}

/// The file of the answers of PIQA beside the file of its questions.
fn labels(questions: &Path) -> PathBuf {
    let stem = questions.file_stem().unwrap_or_default().to_string_lossy();
    questions.with_file_name(format!("{stem}-labels.lst"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_found_by_both_names_and_the_most_similar_is_suggested() {
        for (name, task) in [
            ("hellaswag", Task::HellaSwag),
            ("arc_easy", Task::ArcEasy),
            ("lambada_openai", Task::Lambada),
            ("WikiText", Task::Wikitext),
            ("sciq", Task::Sciq),
        ] {
            assert_eq!(Task::from_name(name).unwrap(), task);
        }
        let error = Task::from_name("helaswag").unwrap_err().to_string();
        assert!(error.contains("did you mean `hellaswag`") && error.contains("piqa"), "{error}");
        Task::ALL.iter().for_each(|&task| assert_eq!(Task::from_name(task.name()).unwrap(), task));
    }
}
