//! `bench`

mod decode;
mod sequences;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use block_transformer_bench::{BenchReport, StepKind};
use block_transformer_zoo::Preset;
use clap::Subcommand;

use super::preset;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Decoding of several models in turn: prompts with continuations, or decoding after a context
    Decode(Box<decode::Args>),
    /// The loss of whole sequences, without gradients
    Eval(sequences::Args),
    /// Whole training steps: forward pass, backward pass, clipping, AdamW
    Train(sequences::Args),
}

impl Args {
    /// Runs the benchmark and prints a table.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.what {
            What::Decode(args) => args.run(),
            What::Eval(args) => args.run(StepKind::Evaluation),
            What::Train(args) => args.run(StepKind::Training),
        }
    }
}

fn presets(names: &[String]) -> Result<Vec<&'static Preset>> {
    names.iter().map(|name| preset(name)).collect()
}

/// Creates the folder of `--out`, before anything is measured.
fn create(out: Option<&Path>) -> Result<()> {
    let Some(dir) = out else { return Ok(()) };
    std::fs::create_dir_all(dir).with_context(|| format!("--out {}", dir.display()))
}

fn print(report: &BenchReport) {
    say!("{}\n\n{}\n{}", report.table(), report.peaks_line(), report.legend());
}

/// Returns the command line, for the summary.
fn command_line() -> String {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    format!("{} {}", crate::program(), arguments.join(" "))
}
