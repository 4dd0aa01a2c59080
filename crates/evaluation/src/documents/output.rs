//! The files of a finished evaluation.

use block_transformer_files::FileError;
use serde::Serialize;

use crate::documents::folder::EvaluationFolder;
use crate::documents::notes::notes;
use crate::documents::report::{BookReport, CheckpointReport, PositionReport};
use crate::documents::samples::Fall;
use crate::error::EvalError;
use crate::statistics::Estimate;
use crate::table;

const CSV: &str = "positions.csv";

/// Writes `results.json`, `positions.csv` and `summary.md`.
pub(crate) fn write(folder: &EvaluationFolder, report: &PositionReport) -> Result<(), EvalError> {
    #[derive(Serialize)]
    struct Results<'a> {
        #[serde(flatten)]
        report: &'a PositionReport,
        notes: Vec<String>,
    }
    folder.write_json("results.json", &Results { report, notes: notes(report) })?;
    let csv = csv(report).map_err(|e| FileError::write(&folder.file(CSV))(e.into()))?;
    folder.write(CSV, &csv)?;
    folder.write("summary.md", report.markdown().as_bytes())
}

/// One row for each checkpoint and position. A position that is not predicted has a count of 0.
fn csv(report: &PositionReport) -> csv::Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["checkpoint", "position", "mean", "standard_error", "count"])?;
    for CheckpointReport { info, curve, .. } in &report.checkpoints {
        for (position, estimate) in curve.positions.iter().enumerate() {
            let cell = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
            csv.write_record([
                &info.label,
                &position.to_string(),
                &cell(estimate.map(|estimate| estimate.value)),
                &cell(estimate.and_then(|estimate| estimate.standard_error)),
                &estimate.map_or(0, |_| curve.windows).to_string(),
            ])?;
        }
    }
    csv.into_inner().map_err(|e| e.into_error().into())
}

impl PositionReport {
    /// The report as a Markdown document.
    pub fn markdown(&self) -> String {
        let sum = |of: fn(&BookReport) -> usize| self.books.iter().map(of).sum::<usize>();
        let mut text = format!(
            "# Loss by position\n\n\
             {} books, {} tokens; {} windows of {} tokens, one every {}; {} tokens in no window. \
             Standard errors are from {} bootstrap samples of books.\n\n",
            self.books.len(),
            sum(|book| book.tokens),
            sum(|book| book.windows),
            self.windows.context,
            self.windows.stride,
            sum(|book| book.unused_tokens),
            self.resamples,
        );
        let notes: String = notes(self).iter().map(|note| format!("- {note}\n")).collect();
        if !notes.is_empty() {
            text = text + &notes + "\n";
        }
        text.push_str(&self.document_table());
        if !self.octaves.is_empty() {
            text.push_str(&self.octave_table());
            self.checkpoints.iter().filter_map(|c| self.fall(c)).for_each(|fall| text += &fall);
            text.push_str(&self.place_table());
        }
        text
    }

    fn document_table(&self) -> String {
        let rows = self.checkpoints.iter().filter_map(|checkpoint| {
            let document = checkpoint.documents?;
            Some(vec![
                checkpoint.info.label.clone(),
                checkpoint.info.family.clone(),
                checkpoint.info.parameters.to_string(),
                checkpoint.info.step.to_string(),
                with_error(&document.loss),
                format!("{:.4}", document.bits_per_byte),
                format!("{:.2}", document.word_perplexity),
            ])
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return String::new();
        }
        let head = [
            "checkpoint",
            "family",
            "parameters",
            "step",
            "loss (nats per token)",
            "bits per byte",
            "word perplexity",
        ];
        let table = table::markdown(&head, 2, &rows);
        format!("## Whole books, every token predicted once\n\n{table}\n")
    }

    /// The loss of every checkpoint by octave, and the differences from the baseline.
    fn octave_table(&self) -> String {
        let compared = || self.checkpoints.iter().filter(|c| c.info.label != self.baseline);
        let labels = self.checkpoints.iter().map(|c| c.info.label.clone());
        let differences = compared().map(|c| format!("{} - {}", c.info.label, self.baseline));
        let head: Vec<String> =
            ["positions".into()].into_iter().chain(labels).chain(differences).collect();
        let octaves = self.octaves.iter().map(|octave| {
            let positions = &octave.positions;
            let checkpoints = self.checkpoints.iter().zip(&octave.differences);
            let differences =
                checkpoints.filter(|(c, _)| c.info.label != self.baseline).map(|(_, d)| d);
            let cells = octave.losses.iter().chain(differences).map(with_error);
            let name = format!("{}-{}", positions.start, positions.end - 1);
            std::iter::once(name).chain(cells).collect()
        });
        let mut rows: Vec<Vec<String>> = octaves.collect();
        let losses = self.checkpoints.iter().map(|checkpoint| checkpoint.common_loss);
        let differences = compared().map(|checkpoint| checkpoint.difference);
        let cells = losses.chain(differences);
        let cells = cells.map(|cell| cell.as_ref().map_or_else(|| "-".into(), with_error));
        rows.push(std::iter::once("all".into()).chain(cells).collect());
        format!("## Windows: loss by position\n\n{}\n", table::markdown(&head, 1, &rows))
    }

    /// How far the loss of a checkpoint falls, compared with the baseline.
    fn fall(&self, checkpoint: &CheckpointReport) -> Option<String> {
        let CheckpointReport { info, fall, fall_difference, .. } = checkpoint;
        let Fall { early, late, by } = fall.as_ref()?;
        let compared = match fall_difference {
            Some(difference) => {
                format!(", {} more than that of {}", with_error(difference), self.baseline)
            }
            None => String::new(),
        };
        Some(format!(
            "- From positions {}-{} to {}-{} the loss of {} falls by {}{compared}.\n",
            early.start,
            early.end - 1,
            late.start,
            late.end - 1,
            info.label,
            with_error(by),
        ))
    }

    fn place_table(&self) -> String {
        let block = self.common_from;
        if block == 1 {
            return String::new();
        }
        let head: Vec<String> =
            ["checkpoint".into()].into_iter().chain((0..block).map(|j| j.to_string())).collect();
        let row = |checkpoint: &CheckpointReport| {
            let cells = checkpoint.by_place.iter().map(with_error);
            std::iter::once(checkpoint.info.label.clone()).chain(cells).collect()
        };
        let rows: Vec<Vec<String>> = self.checkpoints.iter().map(row).collect();
        let table = table::markdown(&head, 1, &rows);
        format!("\n## Windows: loss by place in a block of {block}\n\n{table}")
    }
}

fn with_error(estimate: &Estimate) -> String {
    match estimate.standard_error {
        Some(error) => format!("{:.4} ± {error:.4}", estimate.value),
        None => format!("{:.4}", estimate.value),
    }
}
