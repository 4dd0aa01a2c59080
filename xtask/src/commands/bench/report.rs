//! What was measured, as a table, JSON, CSV and Markdown.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Peaks;

/// The median of repeated measurements, and how far they spread.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The middle one (of an even number the mean of the two).
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of `values`; none of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, min, max })
    }
}

/// A model at some work.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The preset, or the folder of the checkpoint.
    pub model: String,
    /// `block` or `vanilla`.
    pub family: &'static str,
    /// What it did.
    pub work: String,
    /// Tokens of context, where the work has one depth.
    pub context: Option<usize>,
    /// Sequences together.
    pub batch: usize,
    /// Tokens a second.
    pub rate: Spread,
    /// Seconds until a prompt that comes alone has its first token.
    pub first_token: Option<Spread>,
    /// Bytes of keys and values a sequence.
    pub sequence_bytes: Option<u64>,
    /// Bytes of weights, caches and activations, as the formula has them.
    pub predicted_bytes: Option<u64>,
    /// Bytes that the process grew by at most.
    pub peak_bytes: Option<u64>,
    /// FLOPs a token.
    pub token_flops: f64,
    /// Bytes of weights and caches read a token.
    pub token_bytes: f64,
    /// Tokens a second that the peaks measured beside allow at most.
    pub roofline: Spread,
    /// Tokens a second that the cost model predicts from them.
    pub predicted: Spread,
    /// Share of the roofline: the median over pairs of rate and peak.
    pub share: Spread,
    /// Share of what is predicted, in the same way.
    pub predicted_share: Spread,
    /// Validation loss of the checkpoint.
    pub loss: Option<f64>,
}

/// All rows of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured.
    pub title: String,
    /// The backend.
    pub device: String,
    /// What matrices were stored in.
    pub weights: String,
    /// Peaks measured beside: before and after each measurement, the higher.
    pub peaks: Vec<Peaks>,
    /// What came out.
    pub rows: Vec<Row>,
}

const HEAD: [&str; 14] = [
    "model",
    "work",
    "batch",
    "tokens/s",
    "min",
    "max",
    "first token s",
    "KV MB/seq",
    "memory MiB",
    "predicted MiB",
    "MFLOP/token",
    "MB/token",
    "of roofline",
    "of predicted",
];

impl Row {
    fn cells(&self) -> [String; 14] {
        let mib = |bytes: Option<u64>| bytes.map_or("-".into(), |b| (b >> 20).to_string());
        [
            self.model.clone(),
            self.work.clone(),
            self.batch.to_string(),
            number(self.rate.median),
            number(self.rate.min),
            number(self.rate.max),
            self.first_token.map_or("-".into(), |seconds| format!("{:.3}", seconds.median)),
            self.sequence_bytes.map_or("-".into(), |bytes| number(bytes as f64 / 1e6)),
            mib(self.peak_bytes),
            mib(self.predicted_bytes),
            number(self.token_flops / 1e6),
            number(self.token_bytes / 1e6),
            format!("{:.0}%", 100.0 * self.share.median),
            format!("{:.0}%", 100.0 * self.predicted_share.median),
        ]
    }
}

/// Makes the folder of `--out`, before anything is measured.
///
/// # Errors
/// When it cannot be made.
pub fn create(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("--out {}", dir.display()))
}

impl Report {
    /// Writes `results.json`, `results.csv` and `summary.md` to `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)? + "\n";
        let files =
            [("results.json", json), ("results.csv", self.csv()), ("summary.md", self.markdown())];
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// The rows with aligned columns.
    pub fn table(&self) -> String {
        aligned(&HEAD, self.rows.iter().map(|row| row.cells().to_vec()).collect())
    }

    fn csv(&self) -> String {
        let mut text =
            "model,family,work,context,batch,tokens_per_second,min,max,first_token_seconds,\
             kv_bytes_per_sequence,peak_bytes,predicted_bytes,flops_per_token,bytes_per_token,\
             roofline_tokens_per_second,predicted_tokens_per_second,share_of_roofline,share_of_predicted,loss\n"
                .to_string();
        for row in &self.rows {
            let optional = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            let bytes = |value: Option<u64>| value.map_or(String::new(), |v| v.to_string());
            let cells = [
                format!("\"{}\"", row.model.replace('"', "\"\"")),
                row.family.into(),
                row.work.clone(),
                bytes(row.context.map(|tokens| tokens as u64)),
                row.batch.to_string(),
                row.rate.median.to_string(),
                row.rate.min.to_string(),
                row.rate.max.to_string(),
                optional(row.first_token.map(|seconds| seconds.median)),
                bytes(row.sequence_bytes),
                bytes(row.peak_bytes),
                bytes(row.predicted_bytes),
                row.token_flops.to_string(),
                row.token_bytes.to_string(),
                row.roofline.median.to_string(),
                row.predicted.median.to_string(),
                row.share.median.to_string(),
                row.predicted_share.median.to_string(),
                optional(row.loss),
            ];
            text += &(cells.join(",") + "\n");
        }
        text
    }

    fn markdown(&self) -> String {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let command = arguments.join(" ");
        let mut text = format!("# {}\n\n`cargo xtask {command}`\n\n", self.title);
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text += &line(&HEAD.map(String::from));
        text += &line(&HEAD.map(|_| "---".into()));
        for row in &self.rows {
            text += &line(&row.cells());
        }
        let _ = write!(text, "\n{}\n\n{}\n", self.peaks_line(), self.legend());
        text
    }

    /// The peaks, in words.
    pub fn peaks_line(&self) -> String {
        let peak = |of: fn(&Peaks) -> f64| {
            let spread = Spread::of(self.peaks.iter().map(|peaks| of(peaks) / 1e9));
            spread.map_or("?".into(), |s| {
                format!("{} ({} to {})", number(s.median), number(s.min), number(s.max))
            })
        };
        format!(
            "{}, weights {}; peaks measured beside: matmul {} GFLOP/s, memory {} GB/s",
            self.device,
            self.weights,
            peak(|peaks| peaks.flops),
            peak(|peaks| peaks.bandwidth)
        )
    }

    /// What the columns mean.
    pub fn legend(&self) -> &'static str {
        "tokens/s: median, slowest and fastest round. Roofline: the larger of FLOPs over the matmul \
         peak and bytes of weights and caches over the memory peak, both measured just before and after. \
         Predicted: the sum of that over the parts of a step (products, attention, head), which one \
         processor does one after the other, activations in memory. Memory: what the process grew \
         by, and weights, caches and activations by formula."
    }
}

/// A table of text; the first two columns are words, the others numbers.
pub fn aligned(head: &[&str], mut rows: Vec<Vec<String>>) -> String {
    rows.insert(0, head.iter().map(ToString::to_string).collect());
    let width = |column: usize| rows.iter().map(|cells| cells[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for cells in &rows {
        let line = cells.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| {
            if i < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += line.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Three significant digits or more.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Bytes as MB or GB.
pub fn size(bytes: f64) -> String {
    if bytes >= 1e9 {
        format!("{} GB", number(bytes / 1e9))
    } else {
        format!("{} MB", number(bytes / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_middle() {
        let of =
            |values: &[f64]| Spread::of(values.iter().copied()).map(|s| (s.median, s.min, s.max));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(of(&[]), None);
    }
}
