//! `bench decode`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Error, Result, anyhow, ensure};
use block_transformer_bench::{Batches, BenchError, Candidate, DecodeBench, draw, number, ratios};
use block_transformer_cost::{Lengths, Workload};
use block_transformer_device::DeviceName;
use bytesize::ByteSize;

use super::output::{command_line, create, print};
use crate::commands::inputs::{open_checkpoint, presets};
use crate::counts::{self, count, positive};
use crate::device;

/// The batch if neither `--batch` nor `--memory` is given.
const BATCH: usize = 16;
/// The workload if neither `--lengths` nor `--at` is given.
const LENGTHS: Lengths = Lengths { prompt: 128, new: 64 };

/// Arguments of `bench decode`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Presets with random weights, measured in turn [default without --checkpoint:
    /// block-170m,vanilla-160m]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    preset: Vec<String>,
    /// More models to measure: checkpoint folders, reported with their validation losses
    #[arg(long, value_name = "DIR")]
    checkpoint: Vec<PathBuf>,
    /// Tokens of prompt and continuation, such as 2048:128 [default: 128:64]
    #[arg(long, value_delimiter = ',', value_name = "PROMPT:NEW,..")]
    lengths: Vec<Lengths>,
    /// Tokens of context to decode after, from KV caches filled with random values
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,..", value_parser = count())]
    at: Vec<usize>,
    /// Sequences decoded together [default: 16]
    #[arg(long, value_delimiter = ',', value_name = "N,..", value_parser = count())]
    batch: Vec<usize>,
    /// Decode the largest batch that fits into this much memory, such as 16GiB
    #[arg(long, value_name = "SIZE", value_parser = counts::memory, conflicts_with = "batch")]
    memory: Option<ByteSize>,
    /// Time limit in seconds for the prompts of a measurement, and the same limit for its decoding;
    /// the time of the remaining tokens is extrapolated
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Measure every token of every prompt and continuation, however long it takes
    #[arg(long, conflicts_with = "seconds")]
    whole: bool,
    /// Number of times that everything is measured
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive())]
    rounds: usize,
    #[command(flatten)]
    storage: device::StorageFlags,
    /// Folder for results.json, results.csv, summary.md and plots
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Launch every kernel of a block on its own, where a GPU could replay them as one graph
    #[arg(long)]
    no_graph: bool,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Measures everything in turn, and prints a table.
    pub(super) fn run(self) -> Result<ExitCode> {
        ensure!(self.seconds > 0.0, "--seconds: must be more than 0");
        let bench = self.bench()?;
        let device = device::open(self.device)?;
        self.storage.check(self.device, &device)?;
        create(self.out.as_deref())?;
        let rounds = self.rounds;
        let report = bench
            .run(&device, &mut |round, row, peaks| {
                note!(
                    "round {round} of {rounds}: {} {} x {}: {} tokens/s, {:.0}% of the roofline; {peaks}",
                    row.model,
                    row.batch,
                    row.work,
                    number(row.rate.median),
                    100.0 * row.share.median,
                );
            })
            .map_err(with_flags)?;
        print(&report);
        for line in ratios(&report.rows) {
            say!("{line}");
        }
        if let Some(dir) = &self.out {
            report.write(dir, &command_line())?;
            let mut files = String::from("results.json, results.csv, summary.md");
            for name in draw(&report.rows, dir)? {
                files += &format!(", {name}.svg, {name}.png");
            }
            say!("written to {}: {files}", dir.display());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn bench(&self) -> Result<DecodeBench> {
        let mut names = self.preset.clone();
        if names.is_empty() && self.checkpoint.is_empty() {
            names = vec!["block-170m".into(), "vanilla-160m".into()];
        }
        let mut candidates: Vec<Candidate> =
            presets(&names)?.into_iter().map(Candidate::preset).collect();
        for folder in &self.checkpoint {
            let checkpoint = open_checkpoint(folder)?;
            candidates.push(Candidate::checkpoint(&folder.display().to_string(), checkpoint));
        }
        let lengths = self.lengths.iter().copied().map(Workload::Lengths);
        let mut workloads: Vec<Workload> =
            lengths.chain(self.at.iter().copied().map(Workload::AtContext)).collect();
        if workloads.is_empty() {
            workloads.push(Workload::Lengths(LENGTHS));
        }
        let batches = match self.memory {
            Some(memory) => Batches::Memory(memory.as_u64()),
            None if self.batch.is_empty() => Batches::Sizes(vec![BATCH]),
            None => Batches::Sizes(self.batch.clone()),
        };
        Ok(DecodeBench {
            candidates,
            workloads,
            batches,
            seconds: (!self.whole).then_some(self.seconds),
            rounds: self.rounds,
            precision: self.storage.precision(),
            graphs: !self.no_graph,
            device: self.device,
        })
    }
}

/// Names the flag that caused the error, and the remedy.
fn with_flags(error: BenchError) -> Error {
    match &error {
        BenchError::TooShort { .. } => anyhow!("--lengths {error} (--whole)"),
        BenchError::Memory { batch, .. } => {
            anyhow!("--batch {batch}: {error}; give --memory to use the largest batch that fits")
        }
        BenchError::NoBatch { .. } => Error::from(error).context("--memory"),
        _ => error.into(),
    }
}
