//! The settings of `eval`: flags, and the record of them that a resumed evaluation reads.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use block_transformer_collectives::{Collective, of_rank_0};
use block_transformer_evaluation::Alignment;
use block_transformer_evaluation::needle::{NEEDLE, NeedleSettings};
use block_transformer_evaluation::tasks::{Shots, TaskChoice};
use block_transformer_files::write;
use block_transformer_zoo::Precision;
use block_transformer_zoo::family::{CacheFormat, MatrixFormat};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::counts::positive;
use crate::{device, paths};

/// The file in --out that records the settings.
const FILE: &str = "settings.json";
/// Tasks if --tasks and --corpus are not given.
const TASKS: &str = "hellaswag,piqa,arc-easy,lambada,wikitext,winogrande";

/// Flags that decide the results. Those that are not given are `None` or empty.
#[derive(clap::Args, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Checkpoint folder, or run folder (its newest checkpoint); give several to compare them
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    pub checkpoint: Vec<PathBuf>,
    /// Tasks, separated by commas: names, `needle`, or TOML files of your own tasks [default, without --corpus:
    /// hellaswag,piqa,arc-easy,lambada,wikitext,winogrande]
    #[arg(long, value_name = "TASKS", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Measure the loss on a text, by document too: a text file, a .jsonl file, or a folder of such files
    #[arg(long, value_name = "PATH")]
    pub corpus: Option<PathBuf>,
    /// Folder of task files [default: data/eval; missing files are downloaded to it if possible]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Evaluate only the first N items of each task, or documents of --corpus
    #[arg(long, value_name = "N", value_parser = positive())]
    pub limit: Option<usize>,
    /// Solved examples before each prompt [default: 0]
    #[arg(long, value_name = "K")]
    pub shots: Option<usize>,
    /// File of the examples, for one task [default: the training split of the task in --data]
    #[arg(long, value_name = "FILE", requires = "shots")]
    pub shots_from: Option<PathBuf>,
    /// Tokens of context [default: the context that the model was trained with]
    #[arg(long, value_name = "N", value_parser = positive())]
    pub context: Option<usize>,
    /// Tokens per batch; apart from rounding, scores do not depend on it [default: 4096]
    #[arg(long, value_name = "N", value_parser = positive())]
    pub batch_tokens: Option<usize>,
    /// Place of prompts in the blocks of a block model: as in generation, or as in the published evaluation
    /// [default: generation]
    #[arg(long, value_name = "NAME", value_parser = alignment())]
    pub alignment: Option<Alignment>,
    /// File for every item with its scores, one line of JSON each
    #[arg(long, value_name = "FILE")]
    pub items: Option<PathBuf>,
    /// Storage format of the matrices: f32, bf16 with half the memory traffic, or int8 with a quarter [default: f32]
    #[arg(long, value_name = "FORMAT", value_parser = device::matrices())]
    #[serde(skip)]
    pub weights: Option<MatrixFormat>,
    /// Storage format of keys and values: f32, bf16 with half the memory, or int8 with about a quarter [default: f32]
    #[arg(long, value_name = "FORMAT", value_parser = device::stored())]
    #[serde(skip)]
    pub cache: Option<CacheFormat>,
    #[command(flatten)]
    #[serde(flatten)]
    pub needle: NeedleFlags,
}

/// The heading of the flags of the task `needle`.
const NEEDLE_FLAGS: &str = "Needle in a haystack (--tasks needle)";

/// The flags of the task `needle`.
#[derive(clap::Args, Clone, Default, Serialize, Deserialize)]
pub(super) struct NeedleFlags {
    /// Text that the needles are hidden in: a text file, a .jsonl file, or a folder of such files
    #[arg(long, help_heading = NEEDLE_FLAGS, value_name = "PATH")]
    pub haystack: Option<PathBuf>,
    /// Tokens of text, separated by commas [default: 1/8, 1/4, 1/2 and 3/4 of the smallest context]
    #[arg(long, help_heading = NEEDLE_FLAGS, value_name = "TOKENS", value_delimiter = ',', value_parser = positive())]
    pub needle_lengths: Vec<usize>,
    /// Places of the needle in percent of the text [default: 0,10,20,...,100]
    #[arg(long, help_heading = NEEDLE_FLAGS, value_name = "PERCENT", value_delimiter = ',')]
    pub needle_depths: Vec<usize>,
    /// Samples of each length and depth [default: 10]
    #[arg(long, help_heading = NEEDLE_FLAGS, value_name = "N", value_parser = positive())]
    pub needle_samples: Option<usize>,
    /// Numbers among which the model chooses [default: 4]
    #[arg(long, help_heading = NEEDLE_FLAGS, value_name = "N", value_parser = positive())]
    pub needle_options: Option<usize>,
    /// Seed of the samples [default: 0]
    #[arg(long, help_heading = NEEDLE_FLAGS, value_name = "N")]
    pub needle_seed: Option<u64>,
}

/// The record of the settings.
#[derive(Serialize, Deserialize)]
struct Stored {
    settings: Settings,
    precision: Precision,
}

impl Stored {
    /// Reads the record in `out`.
    fn read(out: &Path) -> Result<Self> {
        let path = out.join(FILE);
        ensure!(
            path.is_file(),
            "--out {}: the folder holds no evaluation to resume; leave out --resume",
            out.display()
        );
        let text =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!("{} is damaged; start again in another folder (--out)", path.display())
        })
    }
}

fn alignment() -> impl TypedValueParser<Value = Alignment> {
    let names = [Alignment::Generation, Alignment::Published].map(Alignment::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Alignment>())
}

impl Settings {
    /// The formats of weights and caches.
    pub(super) fn precision(&self) -> Precision {
        Precision::of(self.weights.unwrap_or_default(), self.cache.unwrap_or_default())
    }

    /// The settings of the evaluation in `out`. Flags may repeat them, but not change them.
    pub(super) fn resumed(&self, out: &Path, ranks: &dyn Collective) -> Result<Self> {
        let shown = out.display();
        let stored = of_rank_0(ranks, || Stored::read(out))?;
        let Stored { settings: mut begun, precision } = stored;
        begun.weights = Some(precision.matrices());
        begun.cache = Some(precision.cache());
        let (given, then) = (self.given()?, begun.given()?);
        let mut changed = given.iter().filter(|(key, value)| then.get(*key) != Some(value));
        let key = changed.next().map(|(key, _)| key.as_str());
        let key = match key {
            None if self.weights.is_some() && self.weights != begun.weights => Some("weights"),
            None if self.cache.is_some() && self.cache != begun.cache => Some("cache"),
            key => key,
        };
        if let Some(key) = key {
            anyhow::bail!(
                "--{}: the evaluation in {shown} was begun with another value; leave the flag out to resume it, or \
                 give another --out",
                key.replace('_', "-")
            );
        }
        Ok(begun)
    }

    /// The flags that are given, by key.
    fn given(&self) -> Result<Map<String, Value>> {
        let Value::Object(mut keys) = serde_json::to_value(self)? else { return Ok(Map::new()) };
        keys.retain(|_, value| {
            !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
        });
        Ok(keys)
    }

    /// Whether `out` holds the record of an evaluation.
    pub(super) fn is_recorded(out: &Path) -> bool {
        out.join(FILE).exists()
    }

    /// Records the settings in `out`.
    pub(super) fn record(&self, out: &Path) -> Result<()> {
        let stored = Stored { settings: self.clone(), precision: self.precision() };
        let text = serde_json::to_string_pretty(&stored)? + "\n";
        Ok(write(&out.join(FILE), text.as_bytes())?)
    }

    /// The settings that decide the scores of a checkpoint.
    pub(super) fn of_scores(&self) -> Result<Value> {
        let mut keys = self.given()?;
        for other in ["checkpoint", "items", "tasks", "data", "shots_from", "corpus", "haystack"] {
            keys.remove(other);
        }
        keys.insert("precision".into(), serde_json::to_value(self.precision())?);
        Ok(Value::Object(keys))
    }

    /// The tasks of --tasks, and whether `needle` is one of them.
    pub(super) fn tasks(&self) -> Result<(Vec<TaskChoice>, bool)> {
        let standard = self.tasks.is_empty() && self.corpus.is_none();
        let standard = if standard { TASKS } else { "" };
        let standard = standard.split(',').filter(|name| !name.is_empty()).map(String::from);
        let names: Vec<String> = self.tasks.iter().cloned().chain(standard).collect();
        let (needle, names): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.trim() == NEEDLE);
        let needle = !needle.is_empty();
        let tasks = TaskChoice::of_names(&names).context("--tasks")?;
        let flags = &self.needle;
        let given = serde_json::to_value(flags)?;
        let given = given.as_object().into_iter().flatten().find(|(_, value)| {
            !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
        });
        if let (Some((key, _)), false) = (given, needle) {
            anyhow::bail!(
                "--{}: belongs to the task needle; add --tasks needle",
                key.replace('_', "-")
            );
        }
        ensure!(
            !needle || flags.haystack.is_some(),
            "--tasks needle: give --haystack a text that the needles are hidden in"
        );
        Ok((tasks, needle))
    }

    /// The examples of --shots.
    pub(super) fn shots(&self, tasks: &[TaskChoice]) -> Result<Shots> {
        if let Some(from) = &self.shots_from {
            paths::input_file("--shots-from", from, "give a file of solved examples")?;
            ensure!(
                tasks.len() == 1,
                "--shots-from {}: has the examples of one task, and --tasks names {}; evaluate each alone",
                from.display(),
                tasks.len()
            );
        }
        Ok(Shots { count: self.shots.unwrap_or(0), from: self.shots_from.clone() })
    }

    /// The settings of needles for models of which the smallest context is `context`.
    pub(super) fn needle(&self, context: usize) -> NeedleSettings {
        let flags = &self.needle;
        let lengths = match flags.needle_lengths.is_empty() {
            true => vec![context / 8, context / 4, context / 2, context / 4 * 3],
            false => flags.needle_lengths.clone(),
        };
        let depths = match flags.needle_depths.is_empty() {
            true => (0..=10).map(|depth| 10 * depth).collect(),
            false => flags.needle_depths.clone(),
        };
        NeedleSettings {
            lengths,
            depths,
            samples: flags.needle_samples.unwrap_or(10),
            options: flags.needle_options.unwrap_or(4),
            seed: flags.needle_seed.unwrap_or(0),
        }
    }
}
