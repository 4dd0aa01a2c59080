//! The files of an evaluation that is done.

use std::fmt::Write;

use crate::folder::EvaluationFolder;
use crate::report::{CheckpointReport, Estimate, Report};
use crate::{PositionLossError, figure};

/// Writes `results.json`, `positions.csv`, `summary.md` and the plot.
pub(crate) fn write(folder: &EvaluationFolder, report: &Report) -> Result<(), PositionLossError> {
    folder.write_json("results.json", report)?;
    folder.write("positions.csv", &csv(report))?;
    folder.write("summary.md", &report.markdown())?;
    if report.octaves.is_empty() { Ok(()) } else { figure::write(folder, report) }
}

/// A row for each checkpoint and position; what nothing predicts has a count of 0.
fn csv(report: &Report) -> String {
    let mut csv = String::from("checkpoint,position,mean,standard_error,count\n");
    for CheckpointReport { about, curve, .. } in &report.checkpoints {
        let label = quoted(&about.label);
        for (position, estimate) in curve.positions.iter().enumerate() {
            let row = match estimate {
                Some(Estimate { value, standard_error }) => {
                    let error = standard_error.map_or_else(String::new, |error| error.to_string());
                    format!("{value},{error},{}", curve.windows)
                }
                None => ",,0".into(),
            };
            let _ = writeln!(csv, "{label},{position},{row}");
        }
    }
    csv
}

/// A field as RFC 4180 has it.
fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.into(),
    }
}

impl Report {
    /// The results as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Loss by position\n\n");
        let sum =
            |of: fn(&crate::report::BookReport) -> u64| self.books.iter().map(of).sum::<u64>();
        let _ = writeln!(
            text,
            "{} books, {} tokens; {} windows of {} tokens, one every {}; {} tokens in no window. \
             Standard errors are of {} bootstrap samples of books.\n",
            self.books.len(),
            sum(|book| book.tokens as u64),
            sum(|book| book.windows as u64),
            self.windows.context,
            self.windows.stride,
            sum(|book| book.unused_tokens as u64),
            self.resamples,
        );
        self.notes.iter().for_each(|note| {
            let _ = writeln!(text, "- {note}");
        });
        if !self.notes.is_empty() {
            text.push('\n');
        }
        text.push_str(&self.document_table());
        if !self.octaves.is_empty() {
            text.push_str(&self.window_tables());
        }
        text
    }

    fn document_table(&self) -> String {
        let rows = self.checkpoints.iter().filter_map(|checkpoint| {
            let document = checkpoint.documents?;
            Some(vec![
                checkpoint.about.label.clone(),
                checkpoint.about.family.clone(),
                checkpoint.about.parameters.to_string(),
                checkpoint.about.step.to_string(),
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
            "loss (nats a token)",
            "bits per byte",
            "word perplexity",
        ];
        format!("## Whole books, every token predicted once\n\n{}\n", table(&head, rows))
    }

    fn window_tables(&self) -> String {
        let labels = || self.checkpoints.iter().map(|checkpoint| checkpoint.about.label.clone());
        let others = || labels().filter(|label| *label != self.baseline);
        let head: Vec<String> = ["positions".to_string()]
            .into_iter()
            .chain(labels())
            .chain(others().map(|label| format!("{label} - {}", self.baseline)))
            .collect();
        let row =
            |name: String, losses: Vec<Option<Estimate>>, differences: Vec<Option<Estimate>>| {
                let cells = losses
                    .iter()
                    .chain(&differences)
                    .map(|cell| cell.as_ref().map_or_else(|| "-".into(), with_error));
                std::iter::once(name).chain(cells).collect::<Vec<_>>()
            };
        let not_baseline = |i: &usize| self.checkpoints[*i].about.label != self.baseline;
        let mut rows: Vec<Vec<String>> = self
            .octaves
            .iter()
            .map(|octave| {
                let differences = (0..octave.differences.len()).filter(not_baseline);
                row(
                    format!("{}-{}", octave.positions.start, octave.positions.end - 1),
                    octave.losses.iter().copied().map(Some).collect(),
                    differences.map(|i| Some(octave.differences[i])).collect(),
                )
            })
            .collect();
        rows.push(row(
            "all".into(),
            self.checkpoints.iter().map(|checkpoint| checkpoint.common_loss).collect(),
            (0..self.checkpoints.len())
                .filter(not_baseline)
                .map(|i| self.checkpoints[i].difference)
                .collect(),
        ));
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let mut text = format!("## Windows: loss by position\n\n{}\n", table(&head, rows));
        for CheckpointReport { about, fall, .. } in &self.checkpoints {
            if let Some(fall) = fall {
                let _ = writeln!(
                    text,
                    "From positions {}-{} to {}-{} the loss of {} falls by {}.",
                    fall.early.start,
                    fall.early.end - 1,
                    fall.late.start,
                    fall.late.end - 1,
                    about.label,
                    with_error(&fall.by),
                );
            }
        }
        if self.common_from > 1 {
            let names: Vec<String> = (0..self.common_from).map(|j| j.to_string()).collect();
            let head: Vec<&str> =
                ["checkpoint"].into_iter().chain(names.iter().map(String::as_str)).collect();
            let rows = self.checkpoints.iter().map(|checkpoint| {
                let cells = checkpoint.by_place.iter().map(with_error);
                std::iter::once(checkpoint.about.label.clone()).chain(cells).collect()
            });
            let _ = write!(
                text,
                "\n## Windows: loss by place in a block of {}\n\n{}",
                self.common_from,
                table(&head, rows.collect())
            );
        }
        text
    }
}

fn with_error(estimate: &Estimate) -> String {
    match estimate.standard_error {
        Some(error) => format!("{:.4} ± {error:.4}", estimate.value),
        None => format!("{:.4}", estimate.value),
    }
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let head: Vec<String> = head.iter().map(|cell| cell.to_string()).collect();
    let under: Vec<String> =
        (0..head.len()).map(|i| if i == 0 { "---" } else { "---:" }.to_string()).collect();
    line(&head) + &line(&under) + &rows.iter().map(|row| line(row)).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_commas_and_bars_stay_one_cell() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(table(&["x"], vec![vec!["a|b".into()]]), "| x |\n| --- |\n| a\\|b |\n");
    }
}
