//! `curves`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use block_transformer_files::read_text_up_to;
use block_transformer_plot::{Plot, PlotLine, Style};
use block_transformer_training::MetricsRow;

use crate::paths;

/// Bytes of the largest metrics of a run.
const MAX_METRICS: u64 = 1 << 30;
/// Steps at the beginning of a run whose time is not counted.
const WARM_UP: usize = 3;

/// Arguments of `curves`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of a run; repeat it for several
    #[arg(long, value_name = "DIR", required = true)]
    run: Vec<PathBuf>,
    /// Title of the picture
    #[arg(long, default_value = "validation loss")]
    title: String,
    /// Picture to write; its ending decides the format: .svg or .png
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Args {
    /// Draws the validation losses of all runs into one picture, and prints their last values.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let out = self.out.display();
        let known = self.out.extension().is_some_and(|ending| ending == "svg" || ending == "png");
        ensure!(known, "--out {out}: the name must end in .svg or .png");
        paths::output_file("--out", &self.out)?;
        let mut lines = Vec::new();
        say!(
            "{:<24} {:>6} {:>12} {:>16} {:>10}",
            "run",
            "steps",
            "tokens",
            "validation loss",
            "tokens/s"
        );
        for run in &self.run {
            let rows = rows(run)?;
            let validated = |row: &MetricsRow| Some((row.step as f64, row.validation_loss?));
            let points: Vec<(f64, f64)> = rows.iter().filter_map(validated).collect();
            let (Some(last), Some(&(_, loss))) = (rows.last(), points.last()) else {
                anyhow::bail!("--run {}: the run has no validation loss yet", run.display());
            };
            let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy();
            let rate = rate(&rows).map_or_else(|| "-".into(), |rate| format!("{rate:.0}"));
            say!("{name:<24} {:>6} {:>12} {loss:>16.4} {rate:>10}", last.step, last.tokens);
            let label = format!("{name}: {loss:.3} after {} steps", last.step);
            lines.push(PlotLine { label, points, style: Style::Marked });
        }
        let plot = Plot {
            title: self.title,
            x_label: "step".into(),
            y_label: "validation loss (nats per token)".into(),
            lines,
            ..Plot::default()
        };
        plot.write(&self.out)?;
        say!("{out}");
        Ok(ExitCode::SUCCESS)
    }
}

/// The metrics of a run.
fn rows(run: &Path) -> Result<Vec<MetricsRow>> {
    let path = run.join("metrics.jsonl");
    paths::input_file("--run", &path, "give the folder of a run")?;
    let text =
        read_text_up_to(&path, MAX_METRICS).with_context(|| format!("--run {}", path.display()))?;
    let row =
        |line| serde_json::from_str(line).with_context(|| format!("--run {}", path.display()));
    text.lines().map(row).collect()
}

/// Training tokens per second of computation, validations and the first steps not counted.
fn rate(rows: &[MetricsRow]) -> Option<f64> {
    let after = rows.get(WARM_UP..)?;
    // the seconds of a row include its validation
    let steps = || {
        let all = rows[WARM_UP - 1..].iter().zip(after);
        all.filter(|(_, row)| row.validation_loss.is_none())
    };
    let tokens: u64 = steps().map(|(before, row)| row.tokens - before.tokens).sum();
    let seconds: f64 = steps().map(|(before, row)| row.seconds - before.seconds).sum();
    (seconds > 0.0).then(|| tokens as f64 / seconds)
}
