//! The files of a finished evaluation.

use std::ops::Range;

use block_transformer_files::FileError;
use serde::Serialize;

use crate::documents::folder::EvaluationFolder;
use crate::documents::notes::notes;
use crate::documents::report::{BookReport, CheckpointReport, Octave, PositionReport};
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
    folder.files.write_json("results.json", &Results { report, notes: notes(report) })?;
    let csv = csv(report).map_err(|e| FileError::write(&folder.files.file(CSV))(e.into()))?;
    folder.files.write(CSV, &csv)?;
    folder.files.write("summary.md", report.markdown().as_bytes())
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
             {} books, {} tokens; {} windows of {} tokens, one every {} tokens; {} tokens \
             are in no window. \
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
        let row = |CheckpointReport { info, documents, .. }: &CheckpointReport| {
            let document = documents.as_ref()?;
            Some(vec![
                info.label.clone(),
                info.family.clone(),
                info.parameters.to_string(),
                info.step.to_string(),
                with_error(&document.loss),
                format!("{:.4}", document.bits_per_byte),
                format!("{:.2}", document.word_perplexity),
            ])
        };
        let rows: Vec<_> = self.checkpoints.iter().filter_map(row).collect();
        if rows.is_empty() {
            return String::new();
        }
        let loss = "loss (nats per token)";
        let head = [
            "checkpoint",
            "family",
            "parameters",
            "step",
            loss,
            "bits per byte",
            "word perplexity",
        ];
        let table = table::markdown(&head, 2, &rows);
        format!("## Whole books, every token predicted once\n\n{table}\n")
    }

    /// The loss of every checkpoint by octave, and the differences from the baseline.
    fn octave_table(&self) -> String {
        let compared = |checkpoint: &CheckpointReport| checkpoint.info.label != self.baseline;
        let mut head = vec!["positions".to_string()];
        head.extend(self.checkpoints.iter().map(|c| c.info.label.clone()));
        let others = self.checkpoints.iter().filter(|c| compared(c));
        head.extend(others.map(|c| format!("{} - {}", c.info.label, self.baseline)));
        let octave = |octave: &Octave| {
            let differences = self.checkpoints.iter().zip(&octave.differences);
            let differences = differences.filter(|(c, _)| compared(c)).map(|(_, d)| d);
            row(&span(&octave.positions), octave.losses.iter().chain(differences))
        };
        let mut rows: Vec<Vec<String>> = self.octaves.iter().map(octave).collect();
        // all are `Some`, because there are octaves
        let losses = self.checkpoints.iter().filter_map(|c| c.common_loss.as_ref());
        let differences = self.checkpoints.iter().filter_map(|c| c.difference.as_ref());
        rows.push(row("all", losses.chain(differences)));
        format!("## Windows: loss by position\n\n{}\n", table::markdown(&head, 1, &rows))
    }

    /// By how much the loss of a checkpoint falls, compared with the baseline.
    fn fall(&self, checkpoint: &CheckpointReport) -> Option<String> {
        let Fall { early, late, by } = checkpoint.fall.as_ref()?;
        let compared = checkpoint.fall_difference.as_ref().map(|difference| {
            format!(", {} more than the loss of {}", with_error(difference), self.baseline)
        });
        Some(format!(
            "- From positions {} to {}, the loss of {} falls by {}{}.\n",
            span(early),
            span(late),
            checkpoint.info.label,
            with_error(by),
            compared.unwrap_or_default(),
        ))
    }

    fn place_table(&self) -> String {
        let block = self.common_from;
        if block == 1 {
            return String::new();
        }
        let places = (0..block).map(|place| place.to_string());
        let head: Vec<String> = std::iter::once("checkpoint".into()).chain(places).collect();
        let rows = self.checkpoints.iter().map(|c| row(&c.info.label, &c.by_place));
        let table = table::markdown(&head, 1, &rows.collect::<Vec<_>>());
        format!("\n## Windows: loss by place in a block of {block}\n\n{table}")
    }
}

fn row<'a>(name: &str, cells: impl IntoIterator<Item = &'a Estimate>) -> Vec<String> {
    std::iter::once(name.into()).chain(cells.into_iter().map(with_error)).collect()
}

fn span(positions: &Range<usize>) -> String {
    format!("{}-{}", positions.start, positions.end - 1)
}

fn with_error(estimate: &Estimate) -> String {
    match estimate.standard_error {
        Some(error) => format!("{:.4} ± {error:.4}", estimate.value),
        None => format!("{:.4}", estimate.value),
    }
}
