//! `bench train` and `bench eval`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Error, Result, ensure};
use block_transformer_bench::{BenchError, SequenceBench, StepKind};
use block_transformer_cost::Lengths;
use block_transformer_device::DeviceName;

use super::output::{command_line, create, print};
use crate::commands::inputs::presets;
use crate::counts::{count, positive};
use crate::device;

/// The largest number of tokens per step.
const MOST: usize = Lengths::MOST;

/// Arguments of `bench train` and `bench eval`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Presets, measured in turn
    #[arg(
        long,
        alias = "presets",
        value_delimiter = ',',
        value_name = "NAME,..",
        default_value = "block-170m,vanilla-160m"
    )]
    preset: Vec<String>,
    /// Sequences per step
    #[arg(long, value_name = "N", default_value = "1", value_parser = count())]
    batch: usize,
    /// Tokens per sequence
    #[arg(long, value_name = "TOKENS", default_value = "1024", value_parser = count())]
    context: usize,
    /// Counted steps of each preset, after two steps of warm-up
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive())]
    steps: usize,
    /// Folder for results.json, results.csv and summary.md
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Measures the presets one after the other, and prints a table.
    pub(super) fn run(self, kind: StepKind) -> Result<ExitCode> {
        ensure!(
            self.batch * self.context <= MOST,
            "--batch: {} sequences of {} tokens are more than {MOST} tokens per step",
            self.batch,
            self.context
        );
        let bench = SequenceBench {
            presets: presets(&self.preset)?,
            kind,
            batch: self.batch,
            context: self.context,
            steps: self.steps as u64,
            device: self.device,
        };
        bench.check().context("--context")?;
        bench.check_memory().map_err(with_flags)?;
        create(self.out.as_deref())?;
        let report = bench.run(&device::open(self.device)?)?;
        print(&report);
        if let Some(dir) = &self.out {
            report.write(dir, &command_line())?;
            say!("written to {}: results.json, results.csv, summary.md", dir.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Names the flag that caused the error.
fn with_flags(error: BenchError) -> Error {
    let flag = match &error {
        BenchError::Sequences { largest: Some(_), batch, .. } => format!("--batch {batch}"),
        BenchError::Sequences { model, .. } => format!("--preset {model}"),
        _ => return error.into(),
    };
    Error::new(error).context(flag)
}
