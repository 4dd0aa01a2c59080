//! The tasks: which files they read, and what each item asks, as in the EleutherAI harness 0.4.

mod arc;
mod hellaswag;
mod lambada;
mod lines;
mod piqa;
mod wikitext;
mod winogrande;

use std::path::Path;

use block_transformer_datasets::tasks::{self, TaskFile};

use crate::encode::Prompt;
use crate::{EvalError, Metric};

/// A task of the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// HellaSwag: which of four endings follows (Zellers et al., arXiv 1905.07830).
    HellaSwag,
    /// PIQA: which of two ways reaches a goal (Bisk et al., arXiv 1911.11641).
    Piqa,
    /// ARC, the easy questions (Clark et al., arXiv 1803.05457).
    ArcEasy,
    /// LAMBADA: the last word of a passage (Paperno et al., arXiv 1606.06031), in OpenAI's text.
    Lambada,
    /// WikiText-2: whole articles (Merity et al., arXiv 1609.07843).
    Wikitext,
    /// WinoGrande: what a pronoun stands for (Sakaguchi et al., arXiv 1907.10641). The options are
    /// in the contexts; what follows them is scored.
    Winogrande,
}

/// What one line, or article, of a task asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Which option is the likeliest.
    Choice {
        /// The options.
        options: Vec<Prompt>,
        /// The right one.
        gold: usize,
    },
    /// Whether a continuation is the greedy one, and how likely it is.
    Continuation(Prompt),
    /// How likely a text is.
    Document {
        /// The text.
        text: String,
        /// Words of the original.
        words: usize,
        /// Bytes of the original.
        bytes: usize,
    },
}

/// What stands between a context and an option.
pub(crate) const DELIMITER: &str = " ";

/// Every task, in the order they are listed.
const ALL: [Task; 6] =
    [Task::HellaSwag, Task::Piqa, Task::ArcEasy, Task::Lambada, Task::Wikitext, Task::Winogrande];

impl Task {
    /// Every task.
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// What `--tasks` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::HellaSwag => "hellaswag",
            Self::Piqa => "piqa",
            Self::ArcEasy => "arc-easy",
            Self::Lambada => "lambada",
            Self::Wikitext => "wikitext",
            Self::Winogrande => "winogrande",
        }
    }

    /// The task called `name`, or the harness's name for it.
    ///
    /// # Errors
    /// When there is none; names the nearest.
    pub fn from_name(name: &str) -> Result<Self, EvalError> {
        let plain = name.trim().to_lowercase().replace('_', "-");
        let plain = plain.strip_suffix("-openai").unwrap_or(&plain);
        let likeness = |task: &&Self| (strsim::jaro_winkler(plain, task.name()) * 1e6) as u64;
        let nearest = ALL.iter().max_by_key(likeness).map_or("", |task| task.name());
        ALL.into_iter().find(|task| task.name() == plain).ok_or_else(|| EvalError::UnknownTask {
            name: name.into(),
            nearest: nearest.into(),
            known: ALL.map(Self::name).join(", "),
        })
    }

    /// The files it reads.
    pub fn files(self) -> &'static [TaskFile] {
        match self {
            Self::HellaSwag => &[tasks::HELLASWAG],
            Self::Piqa => &[tasks::PIQA, tasks::PIQA_LABELS],
            Self::ArcEasy => &[tasks::ARC_EASY],
            Self::Lambada => &[tasks::LAMBADA],
            Self::Wikitext => &[tasks::WIKITEXT],
            Self::Winogrande => &[tasks::WINOGRANDE],
        }
    }

    /// What the harness reports of it.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::HellaSwag | Self::Piqa | Self::ArcEasy => &[Metric::Acc, Metric::AccNorm],
            Self::Lambada => &[Metric::Perplexity, Metric::Acc],
            Self::Wikitext => {
                &[Metric::WordPerplexity, Metric::BytePerplexity, Metric::BitsPerByte]
            }
            Self::Winogrande => &[Metric::Acc],
        }
    }

    /// Its items, the first `limit` of them, from the files in `dir`.
    ///
    /// # Errors
    /// When a file is not there or not what it must be; names file and line.
    pub fn load(self, dir: &Path, limit: Option<usize>) -> Result<Vec<Item>, EvalError> {
        let path = dir.join(self.files()[0].name);
        let limit = limit.unwrap_or(usize::MAX);
        let items = match self {
            Self::HellaSwag => hellaswag::load(&path, limit)?,
            Self::Piqa => piqa::load(&path, &dir.join(self.files()[1].name), limit)?,
            Self::ArcEasy => arc::load(&path, limit)?,
            Self::Lambada => lambada::load(&path, limit)?,
            Self::Wikitext => wikitext::load(&path, limit)?,
            Self::Winogrande => winogrande::load(&path, limit)?,
        };
        match items.is_empty() {
            true => Err(EvalError::File { path, reason: "no items in it".into() }),
            false => Ok(items),
        }
    }
}

/// A question whose options follow the same context.
fn question(context: String, options: &[String], gold: usize) -> Result<Item, String> {
    if gold >= options.len() {
        return Err(format!("the right option is number {gold} of {} from 0", options.len()));
    }
    if options.iter().any(String::is_empty) {
        return Err("an option is empty".into());
    }
    let option = |text: &String| Prompt {
        context: context.clone(),
        continuation: format!("{DELIMITER}{text}"),
    };
    Ok(Item::Choice { options: options.iter().map(option).collect(), gold })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_found_by_either_name_and_the_nearest_is_named() {
        for (name, task) in [
            ("hellaswag", Task::HellaSwag),
            ("arc_easy", Task::ArcEasy),
            ("lambada_openai", Task::Lambada),
            ("WikiText", Task::Wikitext),
        ] {
            assert_eq!(Task::from_name(name).unwrap(), task);
        }
        let error = Task::from_name("helaswag").unwrap_err().to_string();
        assert!(error.contains("did you mean `hellaswag`") && error.contains("piqa"), "{error}");
        Task::all()
            .iter()
            .for_each(|&task| assert_eq!(Task::from_name(task.name()).unwrap(), task));
    }
}
