//! `cargo xtask eval`

mod checkpoint;
mod settings;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Error, Result, ensure};
use block_transformer_collectives::rank_0_first;
use block_transformer_datasets::task_file;
use block_transformer_device::DeviceName;
use block_transformer_evaluation::EvalError;
use block_transformer_evaluation::needle::{Haystack, NeedleReport};
use block_transformer_evaluation::tasks::{
    Item, Shots, TaskChoice, TaskMetrics, corpus_items, corpus_metrics,
};
use block_transformer_files::write;

use super::prepare::{with_flags, with_remedy};
use crate::device::StorageFlags;
use crate::progress::progress;
use crate::{device, job, paths};
use checkpoint::{Needles, OpenedCheckpoint, Outcome};
use settings::Settings;

/// Folder of task files if --data is not given.
pub(super) const DATA: &str = "data/eval";
const JSON: &str = "results.json";

/// Arguments of `eval`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Folder to write results.json and results.md to; with several checkpoints, one folder inside it for each
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Resume the evaluation in --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

/// A task with the items that are the same for every checkpoint.
struct LoadedTask {
    task: TaskMetrics,
    items: Arc<[Item]>,
}

impl Args {
    /// Evaluates the tasks, writes the report after each of them, and prints it as a table.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let ranks = job::join()?;
        let leads = ranks.rank() == 0;
        let settings = match (&self.out, self.resume) {
            (Some(out), true) => self.settings.resumed(out, &*ranks)?,
            _ => self.settings,
        };
        let (tasks, needle) = settings.tasks()?;
        let shots = settings.shots(&tasks)?;
        if let Some(items) = settings.items.as_ref().filter(|_| leads) {
            paths::output_file("--items", items)?;
        }
        let out = self.out.as_deref().filter(|_| leads);
        if let Some(out) = out {
            let existing = out.join(JSON);
            let shown = existing.display();
            ensure!(
                self.resume || !existing.exists(),
                "{shown} is already there; give another --out, or --resume"
            );
            paths::output_folder("--out", out)?;
            std::fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
        }
        let device = device::open(self.device)?;
        let (weights, cache) = (settings.precision().matrices(), settings.precision().cache());
        StorageFlags { weights, cache }.check(self.device, &device)?;
        let opened = OpenedCheckpoint::all(&settings)?;
        let mut loaded = Vec::new();
        if let Some(path) = &settings.corpus {
            let flag = || format!("--corpus {}", path.display());
            let items = corpus_items(path, settings.limit).with_context(flag)?;
            loaded.push(LoadedTask { task: corpus_metrics(), items: items.into() });
        }
        for task in &tasks {
            let items = rank_0_first(&*ranks, || items(task, &settings, &shots))?;
            loaded.push(LoadedTask { task: task.metrics(), items: items.into() });
        }
        let context = opened.iter().map(OpenedCheckpoint::context).min().unwrap_or(1);
        let needles = match settings.needle.haystack.as_deref().filter(|_| needle) {
            None => None,
            Some(path) => {
                let haystack = Haystack::read(path);
                let haystack =
                    haystack.with_context(|| format!("--haystack {}", path.display()))?;
                Some(Needles { haystack, settings: settings.needle(context) })
            }
        };
        let mut records = String::new();
        let mut grids = Vec::new();
        let several = opened.len() > 1;
        // the encoded items of all checkpoints are checked before the first model is loaded
        let encoded = opened.iter().map(|one| one.encode(&loaded, needles.as_ref()));
        let encoded = encoded.collect::<Result<Vec<_>>>()?;
        // before anything is written
        for (one, tasks) in opened.iter().zip(&encoded) {
            one.input(&settings)?.check_same(&*ranks, tasks)?;
        }
        if let (Some(out), false) = (out, self.resume) {
            ensure!(
                !Settings::is_recorded(out),
                "--out {}: the folder holds an evaluation already; resume it with --resume, or give another --out",
                out.display()
            );
            settings.record(out)?;
        }
        for (one, tasks) in opened.into_iter().zip(encoded) {
            let out = out.map(|out| one.folder(out, several));
            let label = one.label.clone();
            let before = records.len();
            let mut save = |text: &str| -> Result<()> {
                records.truncate(before);
                records += text;
                match &settings.items {
                    Some(path) if leads => Ok(write(path, records.as_bytes())?),
                    _ => Ok(()),
                }
            };
            let outcome = one.evaluate(
                &settings,
                &tasks,
                needles.as_ref(),
                (out.as_deref(), self.resume),
                (&ranks, &device),
                &mut save,
            )?;
            let Outcome { report, documents, grid } = outcome;
            if several {
                say!("{label}:");
            }
            say!("{}", report.table().trim_end());
            if let Some(documents) = documents {
                say!("\n{}", documents.trim_end());
            }
            grids.extend(grid);
            if let Some(out) = out {
                say!(
                    "{} and {}",
                    out.join(JSON).display(),
                    out.join(checkpoint::MARKDOWN).display()
                );
            }
        }
        if let Some(Needles { settings, .. }) = needles {
            write_needles(&NeedleReport { settings, checkpoints: grids }, out)?;
        }
        if let Some(items) = &settings.items {
            say!("items {}", items.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints the results of needles and writes their files.
fn write_needles(report: &NeedleReport, out: Option<&Path>) -> Result<()> {
    say!("\n{}", report.markdown().trim_end());
    let Some(out) = out else { return Ok(()) };
    let [markdown, csv, svg, png] =
        ["needle.md", "needle.csv", "needle.svg", "needle.png"].map(|name| out.join(name));
    write(&markdown, report.markdown().as_bytes())?;
    write(&csv, report.csv().as_bytes())?;
    let figure = report.figure();
    figure.write(&svg)?;
    figure.write(&png)?;
    say!("plot {} and {}", svg.display(), png.display());
    Ok(())
}

/// The items of a task, from --data or downloaded.
fn items(task: &TaskChoice, settings: &Settings, shots: &Shots) -> Result<Vec<Item>> {
    let data = settings.data.as_deref();
    let place = data.unwrap_or(Path::new(DATA));
    if let (TaskChoice::Harness(task), None) = (task, data) {
        for file in task.files() {
            task_file(file, place, &mut progress(file.name)).map_err(|error| {
                let remedy = "give --data the folder it is in, or leave out the task";
                with_remedy(error, &format!("{remedy} {}", task.name()))
            })?;
        }
    }
    let loaded = task.load(place, settings.limit, shots);
    loaded.map_err(|error| match (error, data, task) {
        (error @ EvalError::ExamplesFile { .. }, ..) => {
            Error::new(error).context("--shots (--shots-from FILE)")
        }
        (
            error @ (EvalError::Examples { .. } | EvalError::NoExamples | EvalError::ManyExamples),
            ..,
        ) => {
            let name = task.metrics().name;
            Error::new(error).context(format!("--shots {}, {name}", shots.count))
        }
        (error, _, TaskChoice::Own(_)) => Error::new(error).context("--tasks"),
        (error, Some(data), _) => Error::new(error).context(format!("--data {}", data.display())),
        (error, None, _) => error.into(),
    })
}

/// Adds to an error the flag that remedies it.
fn with_flag(error: EvalError) -> Error {
    match error {
        EvalError::TooLong { context, .. } => {
            Error::new(error).context(format!("--context {context}"))
        }
        EvalError::Dataset(error) => with_flags(error),
        error @ (EvalError::AlreadyBegun(_) | EvalError::NotBegun(_)) => {
            anyhow::anyhow!("{error} (--resume, --out)")
        }
        error @ EvalError::NotResumable { .. } => anyhow::anyhow!("{error} (--out)"),
        EvalError::Needle(reason) => {
            anyhow::anyhow!(
                "{reason} (--needle-lengths, --needle-depths, --needle-samples, --haystack)"
            )
        }
        error => error.into(),
    }
}
