//! `metrics.jsonl` and `metrics.csv`: a row a step, on the disk as soon as the step is done.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use block_transformer_checkpoint::RunFolder;
use block_transformer_files::FileError;
use serde::{Deserialize, Serialize};

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Counted from 1.
    pub step: u64,
    /// Training loss before the step, in nats a token.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens trained on so far, padding not counted.
    pub tokens: u64,
    /// Seconds spent so far.
    pub seconds: f64,
    /// Validation loss after the step, where it was measured.
    pub validation_loss: Option<f64>,
}

const HEADER: &str = "step,loss,lr,grad_norm,tokens,seconds,validation_loss\n";

impl Row {
    fn csv(&self) -> String {
        let Self { step, loss, lr, grad_norm, tokens, seconds, validation_loss } = self;
        let validation = validation_loss.map_or_else(String::new, |loss| loss.to_string());
        format!("{step},{loss},{lr},{grad_norm},{tokens},{seconds},{validation}\n")
    }

    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// The two files of a run, and what they hold.
pub(crate) struct Metrics {
    jsonl: (PathBuf, File),
    csv: (PathBuf, File),
    pub(crate) rows: Vec<Row>,
}

impl Metrics {
    /// Opens the files with the rows up to `step`; later ones, of steps that will be done again,
    /// are dropped, and so is a row cut short by a kill.
    pub(crate) fn open(folder: &RunFolder, step: u64) -> Result<Self, FileError> {
        let path = folder.file("metrics.jsonl");
        let text = match std::fs::read(&path) {
            Ok(bytes) if step > 0 => String::from_utf8_lossy(&bytes).into_owned(),
            _ => String::new(),
        };
        let rows: Vec<Row> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Row>(line).ok())
            .filter(|row| row.step <= step)
            .collect();
        let csv = folder.file("metrics.csv");
        block_transformer_files::write(
            &path,
            rows.iter().map(Row::json).collect::<String>().as_bytes(),
        )?;
        let table: String =
            std::iter::once(HEADER.into()).chain(rows.iter().map(Row::csv)).collect();
        block_transformer_files::write(&csv, table.as_bytes())?;
        Ok(Self { jsonl: append(path)?, csv: append(csv)?, rows })
    }

    pub(crate) fn push(&mut self, row: Row) -> Result<(), FileError> {
        for ((path, file), text) in [(&mut self.jsonl, row.json()), (&mut self.csv, row.csv())] {
            // one write a row, unbuffered
            file.write_all(text.as_bytes()).map_err(FileError::write(path))?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// Puts the rows on the disk, before a checkpoint that counts on them.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        for (path, file) in [&self.jsonl, &self.csv] {
            file.sync_all().map_err(FileError::write(path))?;
        }
        Ok(())
    }

    /// Mean training loss of the last `n` steps.
    pub(crate) fn recent_loss(&self, n: usize) -> Option<f64> {
        let last = &self.rows[self.rows.len().saturating_sub(n)..];
        let sum: f64 = last.iter().map(|row| row.loss).sum();
        (!last.is_empty()).then(|| sum / last.len() as f64)
    }
}

fn append(path: PathBuf) -> Result<(PathBuf, File), FileError> {
    let file = OpenOptions::new().append(true).open(&path).map_err(FileError::write(&path))?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_past_the_checkpoint_and_half_rows_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let row = |step| Row {
            step,
            loss: 0.1 + step as f64,
            lr: 1e-3,
            grad_norm: 1.0,
            tokens: step * 10,
            seconds: 0.5,
            validation_loss: (step == 2).then_some(3.25),
        };
        let mut metrics = Metrics::open(&folder, 0).unwrap();
        (1..=4).for_each(|step| metrics.push(row(step)).unwrap());
        let path = folder.file("metrics.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let again = Metrics::open(&folder, 2).unwrap();
        assert_eq!(again.rows, [row(1), row(2)]);
        assert_eq!(again.recent_loss(1), Some(2.1));
        let csv = std::fs::read_to_string(folder.file("metrics.csv")).unwrap();
        assert_eq!(csv.lines().count(), 3);
        assert!(csv.lines().nth(2).unwrap().ends_with(",3.25"));
    }
}
