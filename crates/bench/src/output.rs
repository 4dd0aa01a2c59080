//! Files of a benchmark.

use std::io;
use std::path::Path;

use block_transformer_files::{FileError, write};
use block_transformer_plot::{Plot, PlotError};
use serde::Serialize;

/// Writes `results.json`, `results.csv` and `summary.md` to the existing folder `dir`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_results<R: Serialize>(
    dir: &Path,
    results: &R,
    csv: Result<Vec<u8>, csv::Error>,
    summary: String,
) -> Result<(), FileError> {
    let write = |name: &str, content: io::Result<Vec<u8>>| {
        let path = dir.join(name);
        write(&path, &content.map_err(FileError::write(&path))?)
    };
    let json = serde_json::to_string_pretty(results).map(|json| json + "\n");
    write("results.json", json.map(String::into_bytes).map_err(Into::into))?;
    write("results.csv", csv.map_err(Into::into))?;
    write("summary.md", Ok(summary.into_bytes()))
}

/// Draws the plots that have enough points, as SVG and PNG, in the folder `dir`. Returns their names.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn draw_plots(
    plots: impl IntoIterator<Item = (&'static str, Option<Plot>)>,
    dir: &Path,
) -> Result<Vec<&'static str>, PlotError> {
    let mut drawn = Vec::new();
    for (name, plot) in plots {
        let Some(plot) = plot else { continue };
        for extension in ["svg", "png"] {
            plot.write(&dir.join(format!("{name}.{extension}")))?;
        }
        drawn.push(name);
    }
    Ok(drawn)
}
