//! `cargo xtask eval`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Error, Result, anyhow, ensure};
use block_transformer_datasets::{DatasetError, tasks::task_file};
use block_transformer_device::DeviceName;
use block_transformer_evaluation::{Item, Report, Scorer, Setting, Task, Timed, check_tokenizer};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::FamilyConfig;
use indicatif::{ProgressBar, ProgressStyle};

use super::open_checkpoint;
use super::prepare::progress;
use crate::counts::positive;
use crate::device;

/// Where task files are kept when --data does not say.
const DATA: &str = "data/eval";
const JSON: &str = "results.json";
const MARKDOWN: &str = "results.md";

/// Arguments of `eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint folder, or a run's folder (its newest checkpoint)
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Tasks, with commas between them
    #[arg(
        long,
        value_name = "TASKS",
        value_delimiter = ',',
        default_value = "hellaswag,piqa,arc-easy,lambada,wikitext,winogrande"
    )]
    tasks: Vec<String>,
    /// Folder of task files [default: data/eval, where those with a recipe are fetched]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only the first N items of each task
    #[arg(long, value_name = "N", value_parser = positive())]
    limit: Option<usize>,
    /// Solved examples in front of each prompt; only 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    shots: usize,
    /// Tokens of context [default: those the model was trained with]
    #[arg(long, value_name = "N", value_parser = positive())]
    context: Option<usize>,
    /// Tokens computed together; scores do not depend on it
    #[arg(long, value_name = "N", default_value_t = Scorer::BATCH_TOKENS, value_parser = positive())]
    batch_tokens: usize,
    /// Folder to write results.json and results.md to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Device that computes
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Prints a table of scores, and writes it after each task.
    pub fn run(self) -> Result<ExitCode> {
        ensure!(
            self.shots == 0,
            "--shots {}: only 0; examples come from the tasks' training splits, which their files \
             here do not hold",
            self.shots
        );
        let tasks = self.tasks()?;
        if let Some(out) = &self.out {
            let there = out.join(JSON);
            ensure!(!there.exists(), "{}: already there; give another --out", there.display());
            std::fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
        }
        let device = device::open(self.device)?;
        let checkpoint = open_checkpoint(&self.checkpoint)?;
        let tokenizer = checkpoint.tokenizer()?;
        let of_checkpoint = || format!("--checkpoint {}", self.checkpoint.display());
        check_tokenizer(&tokenizer, &checkpoint.config).with_context(of_checkpoint)?;
        let items: Vec<Vec<Item>> =
            tasks.iter().map(|&task| self.items(task)).collect::<Result<_>>()?;
        let model = checkpoint.load_model(&device)?;
        let mut scorer = Scorer::new(&model, &checkpoint.config, &device)?
            .with_batch_tokens(self.batch_tokens)?;
        // a run may have trained on longer windows than its preset names
        if let Some(context) = self.context.or(checkpoint.state.trained_context) {
            scorer = scorer.with_context(context)?;
        }
        let setting = Setting {
            checkpoint: checkpoint.dir.display().to_string(),
            family: checkpoint.config.family().into(),
            non_embedding_parameters: checkpoint.config.num_params_non_embedding(),
            step: checkpoint.state.step,
            context: scorer.context(),
            limit: self.limit,
            shots: self.shots,
        };
        let mut report = Report { setting, tasks: Vec::new() };
        for (&task, items) in tasks.iter().zip(&items) {
            let timed = evaluate(task, items, &scorer, &tokenizer)
                .with_context(|| format!("{}, {}", of_checkpoint(), task.name()))?;
            report.tasks.push(timed);
            if let Some(out) = &self.out {
                write(&out.join(MARKDOWN), &report.to_markdown())?;
                write(&out.join(JSON), &report.to_json())?;
            }
        }
        say!("{}", report.table().trim_end());
        if let Some(out) = &self.out {
            say!("{} and {}", out.join(JSON).display(), out.join(MARKDOWN).display());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The tasks asked for, each once.
    fn tasks(&self) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        for name in &self.tasks {
            let task = Task::from_name(name)?;
            if !tasks.contains(&task) {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// The items of a task, from --data or fetched.
    fn items(&self, task: Task) -> Result<Vec<Item>> {
        if let Some(data) = &self.data {
            let loaded = task.load(data, self.limit);
            return loaded.with_context(|| format!("--data {}", data.display()));
        }
        let data = Path::new(DATA);
        for file in task.files() {
            task_file(file, data, &mut progress(file.name)).map_err(|e| missing(e, task))?;
        }
        Ok(task.load(data, self.limit)?)
    }
}

/// The error of a file that cannot be had, in terms of this command's flags.
fn missing(error: DatasetError, task: Task) -> Error {
    let remedy = format!("give --data the folder it is in, or leave out the task {}", task.name());
    let remedy = match &error {
        DatasetError::Download { path, .. } => {
            format!("download the file elsewhere to {}, or {remedy}", path.display())
        }
        _ => remedy,
    };
    anyhow!("{:#}; {remedy}", Error::new(error))
}

/// Scores a task behind a progress bar.
fn evaluate(
    task: Task,
    items: &[Item],
    scorer: &Scorer<'_>,
    tokenizer: &Tokenizer,
) -> Result<Timed> {
    let start = Instant::now();
    let requests = block_transformer_evaluation::requests(items, tokenizer, scorer.context())?;
    let progress = bar(task.name(), "{human_pos}/{human_len} requests, {eta} left");
    progress.set_length(requests.requests.len() as u64);
    let scored = scorer.score(&requests.requests, |done| progress.inc(done as u64))?;
    progress.finish_and_clear();
    let evaluation = block_transformer_evaluation::conclude(task, items, &requests, &scored);
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "{}: {} items, {} tokens scored in {seconds:.1} s",
        task.name(),
        items.len(),
        evaluation.tokens
    );
    Ok(Timed { evaluation, seconds })
}

/// A bar on stderr, shown where that is a terminal.
fn bar(name: &str, counts: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{prefix}} {{wide_bar}} {counts}"));
    let progress = ProgressBar::new(0).with_prefix(name.to_string());
    progress.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Writes a file, all of it or nothing.
fn write(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("partial");
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path));
    written.with_context(|| path.display().to_string())
}
