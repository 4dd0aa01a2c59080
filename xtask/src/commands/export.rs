//! `export`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use block_transformer_checkpoint::Checkpoint;
use block_transformer_device::DeviceName;
use block_transformer_exchange::{Card, CurvePoint, write_folder};
use block_transformer_files::read_text_up_to;
use block_transformer_training::MetricsRow;
use block_transformer_weights::{FloatFormat, cast, export};
use block_transformer_zoo::LanguageModel;
use burn::module::Module;
use clap::ValueEnum;

use super::inputs::{of_checkpoint, open_checkpoint};
use crate::{device, paths};

/// Files that are written to the folder of a weights file: configuration and tokenizer.
const BESIDE: [&str; 2] = ["config.json", "tokenizer.json"];

/// Bytes of the largest report of evaluations, and of the largest metrics of a run.
const MAX_REPORT: u64 = 4 << 20;
const MAX_METRICS: u64 = 1 << 30;

/// Arguments of `export`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Checkpoint folder, or run folder (its newest checkpoint)
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Format of a weights file
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Float format of the values
    #[arg(long, value_parser = device::float_format(), default_value_t)]
    dtype: FloatFormat,
    /// Folder to write: weights, configuration, tokenizer and a model card; `transformers` loads that of a vanilla
    /// model. With an ending such as .safetensors, only this weights file, with config.json and tokenizer.json
    /// of this project beside it
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Name of the model in its card [default: that of the folder]
    #[arg(long)]
    name: Option<String>,
    /// Markdown file with results of evaluations for the model card, such as that of `eval --out`
    #[arg(long, value_name = "FILE")]
    evaluation: Option<PathBuf>,
    /// Device to load the weights on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A safetensors file with the published names and layouts, which the published Python code
    /// loads
    #[default]
    Safetensors,
    /// burn's own format
    Burnpack,
}

impl Args {
    /// Writes the weights, the configuration and the tokenizer.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let is_file = self.format == Format::Burnpack || self.out.extension().is_some();
        if is_file {
            self.check_file()?
        } else {
            self.check_folder()?
        }
        let checkpoint = open_checkpoint(&self.checkpoint)?;
        let device = device::open(self.device)?;
        let model = checkpoint.load_model(&device).map_err(of_checkpoint)?;
        if is_file {
            self.write_file(model, &checkpoint)?
        } else {
            self.write_folder(&model, &checkpoint)?
        }
        say!("{}", self.out.display());
        Ok(ExitCode::SUCCESS)
    }

    fn check_file(&self) -> Result<()> {
        paths::output_file("--out", &self.out)?;
        let folder = paths::parent(&self.out);
        let (out, shown) = (self.out.display(), folder.display());
        let name = self.out.file_name().unwrap_or_default();
        ensure!(
            !BESIDE.iter().any(|beside| name.eq_ignore_ascii_case(beside)),
            "--out {out}: the export writes {} of its own beside the weights; give the weights another \
             name, such as model.safetensors",
            BESIDE.join(" and ")
        );
        for beside in BESIDE {
            paths::output_file("--out: beside the weights,", &folder.join(beside))?;
        }
        ensure!(
            !folder.join("manifest.json").exists(),
            "--out {out}: {shown} is a checkpoint, whose files must stay as they are; write to another folder"
        );
        for (flag, given) in
            [("--name", self.name.is_some()), ("--evaluation", self.evaluation.is_some())]
        {
            ensure!(!given, "{flag}: only a folder has a model card; give --out a folder");
        }
        Ok(())
    }

    fn check_folder(&self) -> Result<()> {
        let out = self.out.display();
        ensure!(!self.out.exists(), "--out {out}: already exists; give another folder");
        paths::output_folder("--out", &self.out)?;
        if let Some(path) = &self.evaluation {
            paths::input_file("--evaluation", path, "give a Markdown file")?;
        }
        Ok(())
    }

    fn write_file(&self, model: LanguageModel, checkpoint: &Checkpoint) -> Result<()> {
        match self.format {
            Format::Safetensors => {
                export(&model, &checkpoint.config, &checkpoint.unused()?, self.dtype, &self.out)?;
            }
            Format::Burnpack => {
                let saved = cast(model, self.dtype).save_file(&self.out);
                saved.with_context(|| self.out.display().to_string())?;
            }
        }
        let texts = [checkpoint.config.to_json() + "\n", checkpoint.tokenizer()?.to_json()?];
        for (name, text) in BESIDE.iter().zip(texts) {
            let path = paths::parent(&self.out).join(name);
            block_transformer_files::write(&path, text.as_bytes())?;
        }
        Ok(())
    }

    fn write_folder(&self, model: &LanguageModel, checkpoint: &Checkpoint) -> Result<()> {
        let named = self.out.file_name().unwrap_or_default().to_string_lossy();
        let run = run_of(&checkpoint.dir);
        let evaluation = self.evaluation.as_ref().map(|path| {
            read_text_up_to(path, MAX_REPORT)
                .with_context(|| format!("--evaluation {}", path.display()))
        });
        let recorded = || run.and_then(|run| evaluations(run, checkpoint.state.step));
        let picture = run.map(|run| run.join("loss.png")).and_then(|path| std::fs::read(path).ok());
        let card = Card {
            name: self.name.as_deref().unwrap_or(&named),
            config: &checkpoint.config,
            state: &checkpoint.state,
            curve: run.map(|run| curve(run, checkpoint.state.step)).unwrap_or_default(),
            picture: picture.map(|bytes| ("loss.png".into(), bytes)),
            evaluation: evaluation.transpose()?.or_else(recorded),
        };
        let (tokenizer, unused) = (checkpoint.tokenizer()?, checkpoint.unused()?);
        Ok(write_folder(&self.out, model, &tokenizer, &unused, self.dtype, &card)?)
    }
}

/// The run folder of a checkpoint.
fn run_of(checkpoint: &Path) -> Option<&Path> {
    let checkpoints = checkpoint.parent()?;
    checkpoints.ends_with("checkpoints").then(|| checkpoints.parent())?
}

/// The rows of a run up to `step`.
fn rows(run: &Path, step: u64) -> Vec<MetricsRow> {
    let rows = read_text_up_to(&run.join("metrics.jsonl"), MAX_METRICS).unwrap_or_default();
    let rows = rows.lines().filter_map(|line| serde_json::from_str::<MetricsRow>(line).ok());
    rows.filter(|row| row.step <= step).collect()
}

/// The last evaluation of a run while it was trained, as a table.
fn evaluations(run: &Path, step: u64) -> Option<String> {
    let row = rows(run, step).into_iter().rfind(|row| !row.evaluation.is_empty())?;
    let head = "| task | metric | value |\n|---|---|---|\n";
    let mut text = format!("During the training, after step {}:\n\n{head}", row.step);
    for score in &row.evaluation {
        text += &format!("| {} | {} | {:.4} |\n", score.task, score.metric, score.value);
    }
    Some(text)
}

/// The losses of a run up to `step`.
fn curve(run: &Path, step: u64) -> Vec<CurvePoint> {
    let point = |row: MetricsRow| CurvePoint {
        step: row.step,
        train: row.loss,
        validation: row.validation_loss,
    };
    rows(run, step).into_iter().map(point).collect()
}
