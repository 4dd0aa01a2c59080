//! `cargo xtask bench decode`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use block_transformer_cost::Lengths;
use block_transformer_generation::Limits;
use burn::tensor::Device;

use super::case::Case;
use super::engine::{Expected, Measured, Setting, Work, weight_bytes};
use super::figures;
use super::peaks::Peaks;
use super::report::{Report, Row, Spread, create, number};
use crate::bytes::parse_bytes;
use crate::counts::{count, positive};
use crate::device::{DeviceName, Weights};

/// Batch of presets where neither `--batch` nor `--memory` says one.
const BATCH: usize = 16;

/// Arguments of `bench decode`.
#[derive(clap::Args)]
pub struct Args {
    /// Presets with random weights, measured in turn in one run
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    preset: Vec<String>,
    /// Checkpoint folders to measure too, with their validation losses
    #[arg(long, value_name = "DIR")]
    checkpoint: Vec<PathBuf>,
    /// Tokens of prompt and continuation, such as 2048:128 [default: 128:64]
    #[arg(long, value_delimiter = ',', value_name = "PROMPT:NEW,..")]
    lengths: Vec<Lengths>,
    /// Tokens of context to decode behind, from caches filled with random numbers
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,..", value_parser = count)]
    at: Vec<usize>,
    /// Sequences decoded together [default: 16]
    #[arg(long, value_delimiter = ',', value_name = "N,..", value_parser = count)]
    batch: Vec<usize>,
    /// As many sequences as fit into this much memory, instead (16GiB)
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with = "batch")]
    memory: Option<u64>,
    /// Seconds that the prompts, and the decoding, of a measurement may take each; tokens that are
    /// left out are counted as those in the middle
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Every token of every prompt and continuation, however long it takes
    #[arg(long, conflicts_with = "seconds")]
    whole: bool,
    /// Times that everything is measured
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    rounds: usize,
    /// What matrices are stored in
    #[arg(long, value_enum, default_value_t)]
    weights: Weights,
    /// Folder for results.json, results.csv, summary.md and plots
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Backend that computes
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
}

/// A case at some work, measured once a round.
struct Contest<'a> {
    case: &'a Case,
    setting: Setting<'a>,
    rounds: Vec<(Peaks, Measured, Expected)>,
}

impl Args {
    /// Measures everything in turn, and prints a table.
    pub fn run(self) -> Result<ExitCode> {
        ensure!(self.seconds > 0.0, "--seconds: must be more than 0");
        self.weights.check(self.device)?;
        let cases = self.cases()?;
        let device = self.device.open()?;
        self.out.as_deref().map_or(Ok(()), create)?;
        let mut contests = self.contests(&cases, &device)?;
        let mut peaks = Vec::new();
        for round in 1..=self.rounds {
            for contest in &mut contests {
                let before = Peaks::measure(self.device, &device)?;
                let Contest { case, setting, rounds } = contest;
                let measured = setting.measure(case)?;
                let beside = before.or(Peaks::measure(self.device, &device)?);
                let expected = setting.expected(case, &beside.machine(self.weights.number()));
                eprintln!(
                    "round {round} of {}: {} {} x {}: {} tokens/s, {:.0}% of the roofline; {beside}",
                    self.rounds,
                    case.name,
                    setting.batch,
                    setting.work,
                    number(measured.rate),
                    100.0 * measured.rate / expected.bound,
                );
                rounds.push((beside, measured, expected));
                peaks.push(beside);
            }
        }
        let report = Report {
            title: "Decoding".into(),
            device: self.device.name(),
            weights: self.weights.number().to_string(),
            peaks,
            rows: contests.iter().filter_map(Contest::row).collect(),
        };
        say!("{}\n{}\n{}", report.table(), report.peaks_line(), report.legend());
        for line in figures::ratios(&report.rows) {
            say!("{line}");
        }
        if let Some(dir) = &self.out {
            report.write(dir)?;
            let drawn = figures::draw(&report.rows, dir)?;
            say!("written to {}: results.json, results.csv, summary.md{drawn}", dir.display());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The presets, block models beside vanilla ones, then the checkpoints.
    fn cases(&self) -> Result<Vec<Case>> {
        let mut presets = self.preset.clone();
        if presets.is_empty() && self.checkpoint.is_empty() {
            presets = vec!["block-170m".into(), "vanilla-160m".into()];
        }
        let presets = presets.iter().map(|name| Case::preset(name));
        let checkpoints = self.checkpoint.iter().map(|dir| Case::checkpoint(dir));
        presets.chain(checkpoints).collect()
    }

    /// What is measured, in turn.
    fn contests<'a>(&self, cases: &'a [Case], device: &'a Device) -> Result<Vec<Contest<'a>>> {
        let mut works: Vec<Work> = self.lengths.iter().copied().map(Work::Lengths).collect();
        works.extend(self.at.iter().copied().map(Work::At));
        if works.is_empty() {
            works.push(Work::Lengths(Lengths { prompt: 128, new: 64 }));
        }
        let batches = if self.batch.is_empty() { &[BATCH][..] } else { &self.batch };
        let seconds = (!self.whole).then_some(self.seconds);
        let mut contests = Vec::new();
        for work in works {
            for &batch in if self.memory.is_some() { &[0][..] } else { batches } {
                for case in cases {
                    let batch = match self.memory {
                        None => batch,
                        Some(bytes) => {
                            let weights = weight_bytes(case, self.weights);
                            let tokens = work.tokens();
                            Limits::that_fit(&case.config, weights, tokens, usize::MAX, bytes)
                                .with_context(|| format!("{}, {work}", case.name))?
                                .sequences
                        }
                    };
                    let setting = Setting { work, batch, seconds, weights: self.weights, device };
                    setting.check(case)?;
                    self.check_room(case, &setting)?;
                    contests.push(Contest { case, setting, rounds: Vec::new() });
                }
            }
        }
        Ok(contests)
    }

    /// Refuses what the machine has no memory for, before anything is measured.
    fn check_room(&self, case: &Case, setting: &Setting<'_>) -> Result<()> {
        let needed = setting.memory(case).total();
        match crate::memory::of_machine() {
            Some(all) if self.device.is_cpu() && needed > all => bail!(
                "--batch {}: {} {} needs {} MiB, and the machine has {}; give --memory to have the largest \
                 batch found",
                setting.batch,
                case.name,
                setting.work,
                needed >> 20,
                all >> 20
            ),
            _ => Ok(()),
        }
    }
}

impl Contest<'_> {
    fn row(&self) -> Option<Row> {
        let of = |value: &dyn Fn(&(Peaks, Measured, Expected)) -> f64| {
            Spread::of(self.rounds.iter().map(value))
        };
        let (_, measured, expected) = self.rounds.last()?;
        let memory = self.setting.memory(self.case);
        let first_token = measured.first_token;
        Some(Row {
            model: self.case.name.clone(),
            family: self.case.config.family(),
            work: self.setting.work.to_string(),
            context: match self.setting.work {
                Work::At(context) => Some(context),
                Work::Lengths(_) => None,
            },
            batch: self.setting.batch,
            rate: of(&|round| round.1.rate)?,
            first_token: first_token.and(of(&|round| round.1.first_token.unwrap_or(f64::NAN))),
            sequence_bytes: Some(memory.caches / self.setting.batch as u64),
            predicted_bytes: Some(memory.total()),
            peak_bytes: self.rounds.iter().filter_map(|round| round.1.peak_bytes).max(),
            token_flops: expected.token_flops,
            token_bytes: expected.token_bytes,
            roofline: of(&|round| round.2.bound)?,
            predicted: of(&|round| round.2.rate)?,
            share: of(&|round| round.1.rate / round.2.bound)?,
            predicted_share: of(&|round| round.1.rate / round.2.rate)?,
            loss: self.case.loss,
        })
    }
}
