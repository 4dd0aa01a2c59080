//! The results of a benchmark, as a table, JSON, CSV and Markdown.

use std::path::Path;

use block_transformer_cost::Peaks;
use block_transformer_device::{DeviceName, InstructionSet, instruction_set};
use block_transformer_files::FileError;
use block_transformer_zoo::Precision;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::format::{number, table};
use crate::output::write_results;

/// The median and range of repeated measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value; for an even number of values, the mean of the middle two.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Spread {
    /// Returns the spread of `values`; `None` without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, min, max })
    }
}

/// The results of one model at one workload.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    /// The name of the preset, or the folder of the checkpoint.
    pub model: String,
    /// The family of the model.
    pub family: &'static str,
    /// Tokens per block; 1 for models without blocks.
    pub block_length: usize,
    /// The workload.
    pub work: String,
    /// Tokens of context, if the workload has a fixed context.
    pub context: Option<usize>,
    /// Sequences computed together.
    pub batch: usize,
    /// Tokens per second.
    pub rate: Spread,
    /// Seconds until a prompt that is decoded alone has its first token.
    pub first_token: Option<Spread>,
    /// Bytes of keys and values per sequence.
    pub sequence_bytes: Option<u64>,
    /// Predicted bytes of weights, caches and activations.
    pub predicted_bytes: Option<u64>,
    /// Bytes by which the process grew at its peak.
    pub peak_bytes: Option<u64>,
    /// FLOPs per token.
    pub token_flops: f64,
    /// Bytes of weights and caches read per token.
    pub token_bytes: f64,
    /// The limit in tokens per second that follows from the peaks measured before and after.
    pub roofline: Spread,
    /// Tokens per second that the cost model predicts from these peaks.
    pub predicted: Spread,
    /// The rate of each measurement divided by its roofline.
    pub share: Spread,
    /// The rate of each measurement divided by its predicted rate.
    pub predicted_share: Spread,
    /// The validation loss of the checkpoint, in nats per token.
    pub loss: Option<f64>,
}

/// The results of a benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The name of the benchmark.
    pub title: String,
    /// The device.
    pub device: DeviceName,
    /// The instruction set of the kernels, if the device is flex.
    pub instruction_set: Option<&'static str>,
    /// How weights were stored.
    pub precision: Precision,
    /// For each measurement, the higher of the peaks before and after.
    pub peaks: Vec<Peaks>,
    /// One row per model and workload.
    pub rows: Vec<BenchRow>,
}

impl BenchRow {
    /// Returns the columns of the table and their values in this row.
    fn cells(&self) -> [(&'static str, String); 14] {
        let mib = |bytes: Option<u64>| bytes.map_or("-".into(), |b| (b >> 20).to_string());
        let first_token = self.first_token.map(|seconds| format!("{:.3}", seconds.median));
        let cache_megabytes = self.sequence_bytes.map(|bytes| number(bytes as f64 / 1e6));
        [
            ("model", self.model.clone()),
            ("work", self.work.clone()),
            ("batch", self.batch.to_string()),
            ("tokens/s", number(self.rate.median)),
            ("min", number(self.rate.min)),
            ("max", number(self.rate.max)),
            ("first token s", first_token.unwrap_or("-".into())),
            ("KV MB/seq", cache_megabytes.unwrap_or("-".into())),
            ("memory MiB", mib(self.peak_bytes)),
            ("predicted MiB", mib(self.predicted_bytes)),
            ("MFLOP/token", number(self.token_flops / 1e6)),
            ("MB/token", number(self.token_bytes / 1e6)),
            ("of roofline", format!("{:.0}%", 100.0 * self.share.median)),
            ("of predicted", format!("{:.0}%", 100.0 * self.predicted_share.median)),
        ]
    }

    /// Returns the columns of `results.csv` and their values in this row.
    fn csv_cells(&self) -> [(&'static str, String); 19] {
        fn optional<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(String::new, |value| value.to_string())
        }
        [
            ("model", self.model.clone()),
            ("family", self.family.into()),
            ("work", self.work.clone()),
            ("context", optional(self.context)),
            ("batch", self.batch.to_string()),
            ("tokens_per_second", self.rate.median.to_string()),
            ("min", self.rate.min.to_string()),
            ("max", self.rate.max.to_string()),
            ("first_token_seconds", optional(self.first_token.map(|seconds| seconds.median))),
            ("kv_bytes_per_sequence", optional(self.sequence_bytes)),
            ("peak_bytes", optional(self.peak_bytes)),
            ("predicted_bytes", optional(self.predicted_bytes)),
            ("flops_per_token", self.token_flops.to_string()),
            ("bytes_per_token", self.token_bytes.to_string()),
            ("roofline_tokens_per_second", self.roofline.median.to_string()),
            ("predicted_tokens_per_second", self.predicted.median.to_string()),
            ("share_of_roofline", self.share.median.to_string()),
            ("share_of_predicted", self.predicted_share.median.to_string()),
            ("loss", optional(self.loss)),
        ]
    }
}

impl BenchReport {
    /// Writes `results.json`, `results.csv` and `summary.md` to the existing folder `dir`. The
    /// summary names the `command` that ran the benchmark.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path, command: &str) -> Result<(), FileError> {
        write_results(dir, self, self.csv(), self.markdown(command))
    }

    /// Returns the rows as a table.
    pub fn table(&self) -> String {
        let (head, rows) = self.columns(BenchRow::cells);
        table(&head, 2, rows).trim_fmt()
    }

    /// Returns the names of columns, and their values in each row.
    fn columns<const N: usize>(
        &self,
        of_row: fn(&BenchRow) -> [(&'static str, String); N],
    ) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let rows = || self.rows.iter().map(of_row);
        let head = rows().take(1).flatten().map(|(name, _)| name).collect();
        (head, rows().map(|row| row.map(|(_, value)| value).into()).collect())
    }

    fn csv(&self) -> csv::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let (head, rows) = self.columns(BenchRow::csv_cells);
        writer.write_record(head)?;
        rows.iter().try_for_each(|row| writer.write_record(row))?;
        writer.into_inner().map_err(|error| error.into_error().into())
    }

    fn markdown(&self, command: &str) -> String {
        let mut table = Table::new();
        let (head, rows) = self.columns(BenchRow::cells);
        table.load_style(presets::ASCII_MARKDOWN).set_header(head).add_rows(rows);
        format!(
            "# {}\n\n`{command}`\n\n{table}\n\n{}\n\n{}\n",
            self.title,
            self.peaks_line(),
            self.legend()
        )
    }

    /// Returns the peaks as a sentence.
    pub fn peaks_line(&self) -> String {
        let peak = |of: fn(&Peaks) -> f64| {
            let spread = Spread::of(self.peaks.iter().map(|peaks| of(peaks) / 1e9));
            spread.map_or("?".into(), |s| {
                format!("{} ({} to {})", number(s.median), number(s.min), number(s.max))
            })
        };
        let set = self.instruction_set.map_or_else(String::new, |set| format!(" with {set}"));
        format!(
            "{}{set}, weights {}, caches {}; peaks measured before and after: matmul {} GFLOP/s, memory {} GB/s",
            self.device,
            self.precision.matrices(),
            self.precision.cache(),
            peak(|peaks| peaks.flops),
            peak(|peaks| peaks.bandwidth)
        )
    }

    /// Explains the columns of the table.
    pub fn legend(&self) -> &'static str {
        "tokens/s: the median of the rounds, and the slowest and fastest round. Roofline: the \
         speed if a step takes the larger of two times: the FLOPs divided by the matmul peak, and \
         the bytes of weights and caches divided by the memory peak. Predicted: the speed if each \
         phase of a step (matrix products, attention, LM head) takes the larger of these two \
         times, with the bytes of activations included, and the phases run one after the other. \
         Memory: the growth of the process; predicted memory: weights, caches and activations by \
         formula."
    }
}

/// Returns the name of the instruction set of the kernels, if `device` is flex.
pub(crate) fn instruction_set_of(device: DeviceName) -> Option<&'static str> {
    (device == DeviceName::Flex).then(instruction_set)?.ok().map(InstructionSet::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_values_is_the_mean_of_the_middle_two() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0]), spread(2.5, 1.0, 4.0));
        assert_eq!(Spread::of([]), None);
    }
}
