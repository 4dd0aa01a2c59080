//! The output of benchmarks.

use std::path::Path;

use anyhow::{Context, Result};
use block_transformer_bench::BenchReport;

use crate::paths::output_folder;
use crate::program;

/// Creates the folder of `--out`, before anything is measured.
pub(super) fn create(out: Option<&Path>) -> Result<()> {
    let Some(dir) = out else { return Ok(()) };
    output_folder("--out", dir)?;
    std::fs::create_dir_all(dir).with_context(|| format!("--out {}", dir.display()))
}

/// Prints the table of a report.
pub(super) fn print(report: &BenchReport) {
    say!("{}\n\n{}\n{}", report.table(), report.peaks_line(), report.legend());
}

/// Returns the command line, for the summary.
pub(super) fn command_line() -> String {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    format!("{} {}", program::name(), arguments.join(" "))
}
