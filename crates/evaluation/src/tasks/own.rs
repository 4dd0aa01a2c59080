//! Tasks that a user defines in a TOML file.

use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, nearest, plain_types};
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use crate::error::EvalError;
use crate::tasks::corpus::CORPUS;
use crate::tasks::evaluate::TaskMetrics;
use crate::tasks::item::{Item, Prompt, question};
use crate::tasks::lines::read_json;
use crate::tasks::metrics::Metric;
use crate::tasks::shots::Examples;
use crate::tasks::template::{Template, field, plain};

/// The name of the task of [`needle`](crate::needle), which depends on this module.
const NEEDLE: &str = "needle";
/// The largest size of a file of tasks in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The largest number of options of a question.
const MAX_OPTIONS: usize = 256;
/// The largest size in bytes of all prompts of an item together.
const MAX_TEXT: usize = 64 << 20;

/// A task of a TOML file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTask {
    /// The name and the metrics.
    pub task: TaskMetrics,
    data: PathBuf,
    shots: Option<PathBuf>,
    prompt: Template,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Choice { options: Options, gold: Gold },
    Likelihood { target: Template },
}

/// The options of a question: one template each, or a field with a list of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Options {
    Templates(Vec<Template>),
    Field(String),
}

/// The correct option: the same index for each item, or a field with the index or the text of the option.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gold {
    Index(usize),
    Field(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskToml {
    task: Vec<Spanned<OneToml>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneToml {
    name: Spanned<String>,
    kind: KindToml,
    data: Spanned<PathBuf>,
    prompt: Spanned<String>,
    choices: Option<Spanned<ChoicesToml>>,
    gold: Option<GoldToml>,
    target: Option<Spanned<String>>,
    metrics: Option<Vec<Spanned<String>>>,
    shots: Option<Spanned<PathBuf>>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum KindToml {
    MultipleChoice,
    Likelihood,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a list of texts, or the name of a field with a list")]
enum ChoicesToml {
    Field(String),
    Templates(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the number of a choice from 0, or the name of a field")]
enum GoldToml {
    Index(usize),
    Field(String),
}

impl OwnTask {
    /// Reads the tasks of the file `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or a task is invalid; the error names the line.
    pub fn read(path: &Path) -> Result<Vec<Self>, EvalError> {
        let meta = std::fs::metadata(path).map_err(FileError::read(path))?;
        if !meta.is_file() {
            return Err(EvalError::content(path, "not a regular file; give a TOML file of tasks"));
        }
        let size = meta.len();
        if size > MAX_FILE {
            let reason =
                format!("a file of tasks has at most {MAX_FILE} bytes, and this one has {size}");
            return Err(EvalError::content(path, reason));
        }
        let text = std::fs::read_to_string(path).map_err(FileError::read(path))?;
        let at = |position: usize, reason: String| {
            let line = text[..position.min(text.len())].matches('\n').count() + 1;
            EvalError::line(path, line, reason)
        };
        let read: TaskToml = toml::from_str(&text).map_err(|e| {
            let start = e.span().map_or(0, |span| span.start);
            at(start, format!("{}; a task has the keys {KEYS}", plain_types(e.message())))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut tasks: Vec<Self> = Vec::new();
        for one in read.task {
            let start = one.span().start;
            let name = one.get_ref().name.clone();
            let task = Self::new(one.into_inner(), folder);
            let task = task.map_err(|(position, reason)| at(position.unwrap_or(start), reason))?;
            if tasks.iter().any(|other| other.task.name == task.task.name) {
                let reason = format!("a task before it is called `{}` too", task.task.name);
                return Err(at(name.span().start, reason));
            }
            tasks.push(task);
        }
        match tasks.is_empty() {
            true => Err(EvalError::content(path, "the file has no [[task]]")),
            false => Ok(tasks),
        }
    }

    fn new(toml: OneToml, folder: &Path) -> Result<Self, (Option<usize>, String)> {
        let template = |text: &Spanned<String>| {
            Template::parse(text.get_ref()).map_err(|reason| (Some(text.span().start), reason))
        };
        let name = toml.name.get_ref();
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 80 || !name.chars().all(fits) {
            let reason = "a name has 1 to 80 letters, digits, hyphens, underscores and dots".into();
            return Err((Some(toml.name.span().start), reason));
        }
        if [CORPUS, NEEDLE].contains(&name.as_str()) {
            let reason = format!("`{name}` is the name of another evaluation; choose another name");
            return Err((Some(toml.name.span().start), reason));
        }
        let without = |key: &str, given: bool, kind: &str| match given {
            true => Err((None, format!("a task of the kind {kind} has no `{key}`"))),
            false => Ok(()),
        };
        let needed =
            |key: &str, kind: &str| (None, format!("a task of the kind {kind} needs `{key}`"));
        let kind = match toml.kind {
            KindToml::MultipleChoice => {
                const KIND: &str = "multiple_choice";
                without("target", toml.target.is_some(), KIND)?;
                let choices = toml.choices.ok_or_else(|| needed("choices", KIND))?;
                let at = choices.span().start;
                let options = match choices.into_inner() {
                    ChoicesToml::Field(name) => Options::Field(name),
                    ChoicesToml::Templates(texts) if (2..=MAX_OPTIONS).contains(&texts.len()) => {
                        let all = texts.iter().map(|text| Template::parse(text));
                        let all: Result<_, String> = all.collect();
                        Options::Templates(all.map_err(|reason| (Some(at), reason))?)
                    }
                    ChoicesToml::Templates(texts) => {
                        let reason =
                            format!("a task has 2 to {MAX_OPTIONS} choices, not {}", texts.len());
                        return Err((Some(at), reason));
                    }
                };
                let gold = match toml.gold.ok_or_else(|| needed("gold", KIND))? {
                    GoldToml::Index(index) => Gold::Index(index),
                    GoldToml::Field(name) => Gold::Field(name),
                };
                Kind::Choice { options, gold }
            }
            KindToml::Likelihood => {
                const KIND: &str = "likelihood";
                without("choices", toml.choices.is_some(), KIND)?;
                without("gold", toml.gold.is_some(), KIND)?;
                let target = toml.target.as_ref().ok_or_else(|| needed("target", KIND))?;
                Kind::Likelihood { target: template(target)? }
            }
        };
        let allowed: &[Metric] = match kind {
            Kind::Choice { .. } => {
                &[Metric::Acc, Metric::AccNorm, Metric::Loss, Metric::ExactMatch]
            }
            Kind::Likelihood { .. } => &[Metric::Perplexity, Metric::Acc, Metric::Loss],
        };
        let metric = |given: &Spanned<String>| {
            let found = allowed.iter().find(|metric| metric.name() == given.get_ref());
            found.copied().ok_or_else(|| {
                let names: Vec<&str> = allowed.iter().map(|metric| metric.name()).collect();
                let near = nearest(given.get_ref(), names.iter().copied()).unwrap_or_default();
                let (given_name, all) = (given.get_ref(), names.join(", "));
                let reason = format!(
                    "a task of this kind has no metric `{given_name}`; did you mean `{near}`? Metrics: {all}"
                );
                (Some(given.span().start), reason)
            })
        };
        let metrics = match &toml.metrics {
            None => allowed[..2].to_vec(),
            Some(given) => given.iter().map(metric).collect::<Result<Vec<_>, _>>()?,
        };
        if metrics.is_empty() {
            return Err((None, "`metrics` is empty; leave it out for the usual metrics".into()));
        }
        Ok(Self {
            task: TaskMetrics { name: name.clone(), metrics },
            data: folder.join(toml.data.get_ref()),
            shots: toml.shots.map(|file| folder.join(file.get_ref())),
            prompt: template(&toml.prompt)?,
            kind,
        })
    }

    /// Loads the first `limit` items from the task's file.
    ///
    /// # Errors
    /// When the file is missing or a line is invalid; the error names the line.
    pub fn load(&self, limit: Option<usize>) -> Result<Vec<Item>, EvalError> {
        self.read_items(&self.data, limit)
    }

    /// The examples of the task, from `file` or from the task's file of examples. Without both, they are the
    /// items themselves, and one more is drawn, because an item is not its own example.
    pub(crate) fn examples(&self, file: Option<&Path>) -> Result<Examples, EvalError> {
        let other = file.or(self.shots.as_deref());
        let file = other.unwrap_or(&self.data);
        let pool = self.read_items(file, None)?;
        Ok(Examples { pool, file: file.into(), one_more: other.is_none() })
    }

    fn read_items(&self, path: &Path, limit: Option<usize>) -> Result<Vec<Item>, EvalError> {
        let limit = limit.unwrap_or(usize::MAX);
        let items = read_json(path, limit, |line: Map<String, Value>| self.item(&line))?;
        match items.is_empty() {
            true => Err(EvalError::content(path, "the file has no items")),
            false => Ok(items),
        }
    }

    fn item(&self, line: &Map<String, Value>) -> Result<Item, String> {
        let context = self.prompt.fill(line)?;
        let (options, gold) = match &self.kind {
            Kind::Likelihood { target } => {
                let continuation = target.fill(line)?;
                if continuation.is_empty() {
                    return Err("the target is empty".into());
                }
                return Ok(Item::Continuation(Prompt { context, continuation }));
            }
            Kind::Choice { options, gold } => (options, gold),
        };
        let options = match options {
            Options::Templates(all) => {
                all.iter().map(|one| one.fill(line)).collect::<Result<_, _>>()?
            }
            Options::Field(name) => {
                let Value::Array(values) = field(line, name)? else {
                    return Err(format!("the field `{name}` must be a list of texts"));
                };
                if !(2..=MAX_OPTIONS).contains(&values.len()) {
                    return Err(format!(
                        "the field `{name}` has {} options; a question has 2 to {MAX_OPTIONS}",
                        values.len()
                    ));
                }
                values.iter().map(|value| plain(name, value)).collect::<Result<Vec<_>, _>>()?
            }
        };
        let text = options.iter().map(|option| option.len() + context.len()).sum::<usize>();
        if text > MAX_TEXT {
            return Err(format!(
                "the prompts of the item have {text} bytes; at most {MAX_TEXT} fit"
            ));
        }
        let gold = match gold {
            Gold::Index(index) => *index,
            Gold::Field(name) => match field(line, name)? {
                Value::Number(number) => {
                    number.as_u64().and_then(|index| usize::try_from(index).ok()).ok_or_else(
                        || format!("the field `{name}` must be the number of an option, from 0"),
                    )?
                }
                value => {
                    let answer = plain(name, value)?;
                    options.iter().position(|option| *option == answer).ok_or_else(|| {
                        let shown: String = answer.chars().take(80).collect();
                        format!("the field `{name}` is {shown:?}, which is not an option")
                    })?
                }
            },
        };
        question(&context, &options, gold)
    }
}

/// The keys of a task.
const KEYS: &str = "name, kind (multiple_choice or likelihood), data, prompt, choices and gold or target, metrics, shots";
