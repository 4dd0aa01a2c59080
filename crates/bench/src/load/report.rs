//! The results of a load test, as a table, JSON, CSV and Markdown.

use std::path::Path;

use block_transformer_files::FileError;
use block_transformer_zoo::BLOCK_FAMILY;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::client::ServedCard;
use super::row::{Bounds, LoadRow, Percentiles, Rounds};
use super::run::{Load, LoadTest};
use crate::error::BenchError;
use crate::format::{number, table};
use crate::output::write_results;

/// The results of a load test.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// Where the models ran: the device, or the address of the server.
    pub place: String,
    /// The bounds of the goodput.
    pub bounds: Option<Bounds>,
    /// One row per load and model.
    pub rows: Vec<LoadRow>,
}

impl LoadReport {
    /// Measures every model under every load in turn, `rounds` times. After each measurement, `progress` gets the
    /// round (counted from 1) and the row of this measurement alone.
    ///
    /// # Errors
    /// When the server does not answer, or no request under a load is answered.
    pub fn measure(
        place: String,
        tests: &[(LoadTest, ServedCard)],
        loads: &[Load],
        rounds: usize,
        bounds: Option<Bounds>,
        progress: &mut dyn FnMut(usize, &LoadRow),
    ) -> Result<Self, BenchError> {
        let contests: Vec<_> =
            loads.iter().flat_map(|&load| tests.iter().map(move |test| (load, test))).collect();
        let mut all: Vec<Rounds> = contests.iter().map(|_| Rounds::default()).collect();
        for round in 1..=rounds {
            for (all, &(load, (test, card))) in all.iter_mut().zip(&contests) {
                // other arrivals in each round, and the same for every model
                let test = LoadTest { seed: test.seed.wrapping_add(round as u64), ..test.clone() };
                let mut one = Rounds::default();
                one.push(test.traces(load)?);
                progress(round, &one.row(&test, card, load, bounds)?);
                all.extend(one);
            }
        }
        let rows = all.iter().zip(&contests);
        let rows = rows.map(|(all, &(load, (test, card)))| all.row(test, card, load, bounds));
        Ok(Self { place, bounds, rows: rows.collect::<Result<_, _>>()? })
    }

    /// Returns the rows as a table.
    pub fn table(&self) -> String {
        let (head, rows) = self.columns();
        table(&head, 3, rows).trim_fmt()
    }

    /// Explains the columns of the table.
    pub fn legend(&self) -> String {
        let bounds = self.bounds.map_or_else(String::new, |bounds| {
            format!(" Goodput: answers per second with {bounds}.")
        });
        format!(
            "{}; times in ms: median / 90% / 99%. N/s: requests arrive independently of each other and of the answers; \
             N streams: as many clients that send one request after the other. TTFT: time to the first token. ITL: time \
             between two events of a stream, divided by the tokens of the later one. E2E: time of the whole answer. Times \
             count from the moment at which a request was due.{bounds}",
            self.place
        )
    }

    /// Compares the block models with the vanilla models under the same load, in one sentence per pair.
    pub fn ratios(&self) -> Vec<String> {
        let is_block = |row: &&LoadRow| row.family.as_deref() == Some(BLOCK_FAMILY);
        let of_load =
            |block: &LoadRow, row: &&LoadRow| row.load == block.load && row.work == block.work;
        let mut lines = Vec::new();
        for block in self.rows.iter().filter(is_block) {
            for other in self.rows.iter().filter(|row| of_load(block, row) && !is_block(row)) {
                lines.push(format!(
                    "{}: {} writes {} times as many tokens per second as {}, its first token comes after {} and its \
                     answer after {} of the time (medians)",
                    block.load,
                    block.model,
                    number(block.tokens_per_second / other.tokens_per_second),
                    other.model,
                    number(block.ttft.p50 / other.ttft.p50),
                    number(block.e2e.p50 / other.e2e.p50),
                ));
            }
        }
        lines
    }

    /// Writes `results.json`, `results.csv` and `summary.md` to the existing folder `dir`. The summary names the
    /// `command` that ran the test.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path, command: &str) -> Result<(), FileError> {
        write_results(dir, self, self.csv(), self.markdown(command))
    }

    fn columns(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let ms = |times: Percentiles| {
            let of = |seconds: f64| number(1000.0 * seconds);
            format!("{} / {} / {}", of(times.p50), of(times.p90), of(times.p99))
        };
        let mut head = vec![
            "model",
            "load",
            "work",
            "answers",
            "failed",
            "answers/s",
            "tokens/s",
            "TTFT",
            "ITL",
            "E2E",
        ];
        head.extend(self.bounds.map(|_| "goodput/s"));
        let rows = self.rows.iter().map(|row| {
            let mut cells = vec![
                row.model.clone(),
                row.load.to_string(),
                row.work.clone(),
                row.answered.to_string(),
                row.failed.to_string(),
                number(row.requests_per_second),
                number(row.tokens_per_second),
                ms(row.ttft),
                ms(row.itl),
                ms(row.e2e),
            ];
            cells.extend(row.goodput.map(number));
            cells
        });
        (head, rows.collect())
    }

    fn csv(&self) -> csv::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let times = ["ttft", "itl", "e2e"]
            .map(|name| ["p50", "p90", "p99"].map(|share| format!("{name}_{share}_seconds")));
        let mut head: Vec<String> =
            ["model", "family", "rate", "streams", "work", "answered", "failed", "seconds"]
                .map(String::from)
                .into();
        head.extend(["requests_per_second", "tokens_per_second"].map(String::from));
        head.extend(times.into_iter().flatten());
        head.push("goodput".into());
        writer.write_record(head)?;
        for row in &self.rows {
            let (rate, streams) = match row.load {
                Load::Rate(rate) => (rate.to_string(), String::new()),
                Load::Streams(streams) => (String::new(), streams.to_string()),
            };
            let mut cells =
                vec![row.model.clone(), row.family.clone().unwrap_or_default(), rate, streams];
            cells.extend([row.work.clone(), row.answered.to_string(), row.failed.to_string()]);
            let numbers = [row.seconds, row.requests_per_second, row.tokens_per_second];
            let times =
                [row.ttft, row.itl, row.e2e].into_iter().flat_map(|of| [of.p50, of.p90, of.p99]);
            cells.extend(numbers.into_iter().chain(times).map(|value| value.to_string()));
            cells.push(row.goodput.map_or_else(String::new, |goodput| goodput.to_string()));
            writer.write_record(cells)?;
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    }

    fn markdown(&self, command: &str) -> String {
        let mut table = Table::new();
        let (head, rows) = self.columns();
        table.load_style(presets::ASCII_MARKDOWN).set_header(head).add_rows(rows);
        let ratios: String = self.ratios().iter().map(|line| format!("- {line}\n")).collect();
        let ratios = if ratios.is_empty() { ratios } else { format!("\n{ratios}") };
        format!("# Load over HTTP\n\n`{command}`\n\n{table}\n\n{}\n{ratios}", self.legend())
    }
}
