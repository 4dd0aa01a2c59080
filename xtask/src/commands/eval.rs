//! `cargo xtask eval`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Error, Result, ensure};
use block_transformer_datasets::task_file;
use block_transformer_device::DeviceName;
use block_transformer_evaluation::tasks::{
    Item, Task, TaskReport, TimedEvaluation, check_tokenizer, evaluate,
};
use block_transformer_evaluation::{BATCH_TOKENS, EvalError, Scorer};
use block_transformer_files::write;
use block_transformer_text::Tokenizer;
use block_transformer_zoo::family::CacheFormat;
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel};

use super::inputs::{of_checkpoint, open_checkpoint};
use super::prepare::with_remedy;
use crate::counts::positive;
use crate::device::StorageFlags;
use crate::progress::progress;
use crate::{device, paths};

/// Folder of task files if --data is not given.
const DATA: &str = "data/eval";
const JSON: &str = "results.json";
const MARKDOWN: &str = "results.md";

/// Arguments of `eval`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Checkpoint folder, or run folder (its newest checkpoint)
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Tasks, separated by commas
    #[arg(
        long,
        value_name = "TASKS",
        value_delimiter = ',',
        default_value = "hellaswag,piqa,arc-easy,lambada,wikitext,winogrande"
    )]
    tasks: Vec<String>,
    /// Folder of task files [default: data/eval; missing files are downloaded to it if possible]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Evaluate only the first N items of each task
    #[arg(long, value_name = "N", value_parser = positive())]
    limit: Option<usize>,
    /// Solved examples before each prompt; only 0 is supported
    #[arg(long, value_name = "N", default_value_t = 0)]
    shots: usize,
    /// Tokens of context [default: the context that the model was trained with]
    #[arg(long, value_name = "N", value_parser = positive())]
    context: Option<usize>,
    /// Tokens per batch; scores do not depend on it
    #[arg(long, value_name = "N", default_value_t = BATCH_TOKENS, value_parser = positive())]
    batch_tokens: usize,
    /// Folder to write results.json and results.md to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    storage: StorageFlags,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Evaluates the tasks, writes the report after each of them, and prints it as a table.
    pub(crate) fn run(self) -> Result<ExitCode> {
        ensure!(
            self.shots == 0,
            "--shots {}: only 0 is supported; examples come from the tasks' training splits, which \
             their files here do not include",
            self.shots
        );
        let tasks = self.tasks()?;
        if let Some(out) = &self.out {
            let existing = out.join(JSON);
            let shown = existing.display();
            ensure!(!existing.exists(), "{shown} is already there; give another --out");
            paths::output_folder("--out", out)?;
            std::fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
        }
        let device = device::open(self.device)?;
        self.storage.check(self.device, &device)?;
        let precision = self.storage.precision();
        let checkpoint = open_checkpoint(&self.checkpoint)?;
        let tokenizer = checkpoint.tokenizer()?;
        let flag = || format!("--checkpoint {}", self.checkpoint.display());
        check_tokenizer(&tokenizer, checkpoint.config.vocab_size()).with_context(flag)?;
        let items: Vec<Vec<Item>> =
            tasks.iter().map(|&task| self.items(task)).collect::<Result<_>>()?;
        let model = checkpoint.load_model(&device).map_err(of_checkpoint)?;
        let model = model.with_precision(precision).prepared();
        let mut scorer = Scorer::new(&model).with_batch_tokens(self.batch_tokens)?;
        if precision.cache() != CacheFormat::F32 {
            scorer = scorer.with_cache(precision.cache()).context("--cache")?;
        }
        // a run may have trained on longer windows than its preset names
        if let Some(context) = self.context.or(checkpoint.state.trained_context) {
            scorer = scorer.with_context(context)?;
        }
        let mut report = TaskReport {
            checkpoint: checkpoint.dir.display().to_string(),
            family: checkpoint.config.family().into(),
            non_embedding_parameters: checkpoint.config.num_params_non_embedding(),
            step: checkpoint.state.step,
            context: scorer.context(),
            precision,
            limit: self.limit,
            shots: self.shots,
            tasks: Vec::new(),
        };
        for (&task, items) in tasks.iter().zip(&items) {
            let timed = timed(task, items, &scorer, &tokenizer)
                .with_context(|| format!("{}, {}", flag(), task.name()))?;
            report.tasks.push(timed);
            if let Some(out) = &self.out {
                write(&out.join(MARKDOWN), report.to_markdown().as_bytes())?;
                write(&out.join(JSON), report.to_json().as_bytes())?;
            }
        }
        say!("{}", report.table().trim_end());
        if let Some(out) = &self.out {
            say!("{} and {}", out.join(JSON).display(), out.join(MARKDOWN).display());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The tasks of --tasks, each once.
    fn tasks(&self) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        for name in &self.tasks {
            let task = Task::from_name(name).context("--tasks")?;
            if !tasks.contains(&task) {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// The items of a task, from --data or downloaded.
    fn items(&self, task: Task) -> Result<Vec<Item>> {
        if let Some(data) = &self.data {
            let loaded = task.load(data, self.limit);
            return loaded.with_context(|| format!("--data {}", data.display()));
        }
        let data = Path::new(DATA);
        for file in task.files() {
            task_file(file, data, &mut progress(file.name)).map_err(|error| {
                let remedy = "give --data the folder it is in, or leave out the task";
                with_remedy(error, &format!("{remedy} {}", task.name()))
            })?;
        }
        Ok(task.load(data, self.limit)?)
    }
}

/// Evaluates a task with a progress bar.
fn timed(
    task: Task,
    items: &[Item],
    scorer: &Scorer<LanguageModel>,
    tokenizer: &Tokenizer,
) -> Result<TimedEvaluation> {
    let start = Instant::now();
    let evaluation = evaluate(task, items, scorer, tokenizer, &mut progress(task.name()));
    let evaluation = evaluation.map_err(with_flag)?;
    let seconds = start.elapsed().as_secs_f64();
    let (name, items, tokens) = (task.name(), items.len(), evaluation.tokens);
    note!("{name}: {items} items, {tokens} tokens scored in {seconds:.1} s");
    Ok(TimedEvaluation { evaluation, seconds })
}

/// Adds to an error the flag that remedies it.
fn with_flag(error: EvalError) -> Error {
    match error {
        EvalError::TooLong { context, .. } => {
            Error::new(error).context(format!("--context {context}"))
        }
        error => error.into(),
    }
}
