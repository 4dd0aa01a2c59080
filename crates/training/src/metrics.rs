//! `metrics.jsonl`, `metrics.csv` and an event file of TensorBoard: one row per step, which is written as soon as
//! the step is done. `evaluations.csv` has one row per metric of an evaluation.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use block_transformer_checkpoint::RunFolder;
use block_transformer_files::FileError;

use crate::row::{EvaluationScore, MetricsRow};
use crate::tensorboard;

const HEADER: &str =
    "step,loss,lr,grad_norm,tokens,seconds,validation_loss,skipped,mfu,device_memory\n";

const EVALUATIONS_HEADER: &str = "step,task,metric,value,stderr\n";

type Encode = fn(&[MetricsRow]) -> io::Result<Vec<u8>>;

/// The files of a run, and their rows.
pub(crate) struct Metrics {
    files: Vec<(PathBuf, Encode, File)>,
    pub(crate) rows: Vec<MetricsRow>,
}

impl Metrics {
    /// Opens the files with the rows up to `step`. Later rows are removed, because their steps will
    /// be repeated. An incomplete row that a kill left is removed as well.
    /// With `evaluates`, there is a file for evaluations.
    pub(crate) fn open(folder: &RunFolder, step: u64, evaluates: bool) -> Result<Self, FileError> {
        let [jsonl, csv, evaluations, events] =
            ["metrics.jsonl", "metrics.csv", "evaluations.csv", tensorboard::FILE]
                .map(|name| folder.file(name));
        let text = match std::fs::read(&jsonl) {
            Ok(bytes) if step > 0 => String::from_utf8_lossy(&bytes).into_owned(),
            _ => String::new(),
        };
        let rows = text.lines().filter_map(|line| serde_json::from_str::<MetricsRow>(line).ok());
        let rows: Vec<MetricsRow> = rows.filter(|row| row.step <= step).collect();
        let file = |path: PathBuf, header: &[u8], encode: Encode| {
            let mut bytes = header.to_vec();
            bytes.extend(encode(&rows).map_err(FileError::write(&path))?);
            block_transformer_files::write(&path, &bytes)?;
            let file = OpenOptions::new().append(true).open(&path);
            let file = file.map_err(FileError::write(&path))?;
            Ok::<_, FileError>((path, encode, file))
        };
        let has_evaluations = evaluates || evaluations.exists();
        let mut files = vec![
            file(jsonl, b"", encode_json)?,
            file(csv, HEADER.as_bytes(), encode_csv)?,
            file(events, &tensorboard::header(), tensorboard::encode)?,
        ];
        if has_evaluations {
            files.push(file(evaluations, EVALUATIONS_HEADER.as_bytes(), encode_evaluations)?);
        }
        Ok(Self { files, rows })
    }

    /// The rows of a rank that writes no files.
    pub(crate) fn unwritten() -> Self {
        Self { files: Vec::new(), rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: MetricsRow) -> Result<(), FileError> {
        for (path, encode, file) in &mut self.files {
            // one unbuffered write per row
            let row = encode(std::slice::from_ref(&row));
            row.and_then(|row| file.write_all(&row)).map_err(FileError::write(path))?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// Syncs the rows to the disk. This is called before a checkpoint is written, which relies on
    /// the rows.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        for (path, _, file) in &self.files {
            file.sync_all().map_err(FileError::write(path))?;
        }
        Ok(())
    }

    /// Mean training loss of the last `n` steps, skipped steps not counted.
    pub(crate) fn recent_loss(&self, n: usize) -> Option<f64> {
        let last = &self.rows[self.rows.len().saturating_sub(n)..];
        let losses: Vec<f64> = last.iter().filter(|row| !row.skipped).map(|row| row.loss).collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// The skipped steps after the last step that was not skipped.
    pub(crate) fn skipped_last(&self) -> &[MetricsRow] {
        let skipped = self.rows.iter().rev().take_while(|row| row.skipped).count();
        &self.rows[self.rows.len() - skipped..]
    }
}

fn encode_json(rows: &[MetricsRow]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut lines, row)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

fn encode_csv(rows: &[MetricsRow]) -> io::Result<Vec<u8>> {
    let mut lines = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    // the scores of evaluations have a file of their own
    let without = |row: &MetricsRow| MetricsRow { evaluation: Vec::new(), ..row.clone() };
    rows.iter().try_for_each(|row| lines.serialize(without(row)))?;
    lines.into_inner().map_err(csv::IntoInnerError::into_error)
}

fn encode_evaluations(rows: &[MetricsRow]) -> io::Result<Vec<u8>> {
    let mut lines = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    for row in rows {
        for EvaluationScore { task, metric, value, stderr } in &row.evaluation {
            lines.serialize((row.step, task, metric, value, stderr))?;
        }
    }
    lines.into_inner().map_err(csv::IntoInnerError::into_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_past_the_checkpoint_and_half_rows_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let row = |step| MetricsRow {
            step,
            loss: 0.1 + step as f64,
            lr: 1e-3,
            grad_norm: 1.0,
            tokens: step * 10,
            seconds: 0.5,
            validation_loss: (step == 2).then_some(3.25),
            skipped: false,
            mfu: None,
            device_memory: (step == 1).then_some(4096),
            evaluation: Vec::new(),
        };
        let mut metrics = Metrics::open(&folder, 0, false).unwrap();
        (1..=4).for_each(|step| metrics.push(row(step)).unwrap());
        let path = folder.file("metrics.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let again = Metrics::open(&folder, 2, false).unwrap();
        assert_eq!(again.rows, [row(1), row(2)]);
        assert_eq!(again.recent_loss(1), Some(2.1));
        let csv = std::fs::read_to_string(folder.file("metrics.csv")).unwrap();
        assert_eq!(csv.lines().count(), 3);
        assert!(csv.lines().nth(1).unwrap().ends_with(",,false,,4096"));
        assert!(csv.lines().nth(2).unwrap().ends_with(",3.25,false,,"));
    }

    #[test]
    fn skipped_steps_are_kept_and_not_averaged() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let mut metrics = Metrics::open(&folder, 0, false).unwrap();
        for (step, loss) in [(1, 2.0), (2, f64::NAN), (3, 4.0), (4, f64::INFINITY)] {
            let skipped = !loss.is_finite();
            let (lr, grad_norm, tokens, seconds) = (1e-3, loss, 10, 0.5);
            let row = MetricsRow {
                step,
                loss,
                lr,
                grad_norm,
                tokens,
                seconds,
                skipped,
                ..MetricsRow::default()
            };
            metrics.push(row).unwrap();
        }
        let again = Metrics::open(&folder, 4, false).unwrap();
        assert_eq!(again.recent_loss(4), Some(3.0));
        let skipped: Vec<(u64, bool)> =
            again.skipped_last().iter().map(|row| (row.step, row.loss.is_nan())).collect();
        assert_eq!(skipped, [(4, true)]);
    }

    #[test]
    fn rows_of_older_runs_have_no_skipped_steps_and_no_device_memory() {
        let row = r#"{"step":1,"loss":2.5,"lr":0.1,"grad_norm":1.0,"tokens":8,"seconds":0.5,
            "validation_loss":null}"#;
        let row = serde_json::from_str::<MetricsRow>(row).unwrap();
        assert_eq!((row.skipped, row.mfu, row.device_memory), (false, None, None));
    }

    #[test]
    fn evaluations_and_events_of_a_resumed_run_are_those_of_the_rows_up_to_its_step() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let row = |step| {
            let score = |task: &str, stderr| EvaluationScore {
                task: task.into(),
                metric: "acc".into(),
                value: 0.25 * step as f64,
                stderr,
            };
            let evaluation = match step % 2 {
                0 => vec![score("one", Some(0.5)), score("two", None)],
                _ => Vec::new(),
            };
            MetricsRow { step, seconds: step as f64, evaluation, ..MetricsRow::default() }
        };
        let read = || {
            ["metrics.jsonl", "metrics.csv", "evaluations.csv", tensorboard::FILE]
                .map(|name| std::fs::read(folder.file(name)).unwrap())
        };
        let mut metrics = Metrics::open(&folder, 0, true).unwrap();
        (1..=2).for_each(|step| metrics.push(row(step)).unwrap());
        let two = read();
        let text = String::from_utf8(two[2].clone()).unwrap();
        assert_eq!(text, "step,task,metric,value,stderr\n2,one,acc,0.5,0.5\n2,two,acc,0.5,\n");
        (3..=4).for_each(|step| metrics.push(row(step)).unwrap());
        let four = read();
        assert!(four.iter().zip(&two).all(|(four, two)| four.starts_with(two)));
        // a resumed run without evaluations keeps the earlier ones
        let mut again = Metrics::open(&folder, 2, false).unwrap();
        assert_eq!(again.rows, [row(1), row(2)]);
        assert!(read() == two);
        (3..=4).for_each(|step| again.push(row(step)).unwrap());
        assert!(read() == four);
        // a new run without evaluations has no file for them
        let dir = tempfile::tempdir().unwrap();
        Metrics::open(&RunFolder::new(dir.path()), 0, false).unwrap();
        assert!(!dir.path().join("evaluations.csv").exists());
    }
}
