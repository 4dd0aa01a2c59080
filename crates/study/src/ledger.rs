//! The ledger: every measurement, one line of JSON each.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, read_up_to};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StudyError;

/// The largest ledger in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// A measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The identity of the run or of the shape that was measured.
    pub run: String,
    /// The name of the measurement.
    pub measurement: String,
    /// Its settings. A measurement with other settings is another one.
    pub settings: Value,
    /// Its values.
    pub values: Value,
    /// The seed of the run; `None` for a shape.
    pub seed: Option<u64>,
    /// The device.
    pub device: String,
    /// Seconds that the measurement took.
    pub seconds: f64,
    /// The identity of the texts: the tokens of the training text, fingerprints of the tokenizer and of the token
    /// ids, and after a slash that of the validation text, or `held-out`. Empty for a shape.
    pub text: String,
    /// The commit of the program.
    pub commit: String,
    /// The command, without paths.
    pub command: String,
}

/// The measurements of a file.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    path: PathBuf,
    rows: Vec<Row>,
    /// Index of the first row of a run and a measurement with settings.
    index: HashMap<String, usize>,
    /// Whether the last row had no end in the file when it was read.
    lacks_end: bool,
}

fn key(run: &str, measurement: &str, settings: &Value) -> String {
    format!("{run} {measurement} {settings}")
}

impl Ledger {
    /// Reads the ledger at `path`, which need not exist. A last line without an end, which a kill left, counts if
    /// it is a measurement.
    ///
    /// # Errors
    /// When the file cannot be read, or holds a line that is not a measurement.
    pub fn open(path: &Path) -> Result<Self, StudyError> {
        let bytes = match read_up_to(path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.source.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut ledger = Self { path: path.into(), ..Self::default() };
        let (lines, last) = bytes.split_at(end(&bytes));
        for (i, line) in lines.split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let row = serde_json::from_slice(line).map_err(|error| StudyError::Ledger {
                path: path.into(),
                line: i + 1,
                reason: error.to_string(),
            })?;
            ledger.insert(row);
        }
        // another process may be writing it
        if let Ok(row) = serde_json::from_slice(last) {
            ledger.insert(row);
            ledger.lacks_end = true;
        }
        Ok(ledger)
    }

    /// A ledger with these rows and without a file.
    #[cfg(test)]
    pub(crate) fn of(rows: Vec<Row>) -> Self {
        let mut ledger = Self::default();
        rows.into_iter().for_each(|row| ledger.insert(row));
        ledger
    }

    fn insert(&mut self, row: Row) {
        let key = key(&row.run, &row.measurement, &row.settings);
        self.index.entry(key).or_insert(self.rows.len());
        self.rows.push(row);
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rows, in the order in which they were measured.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row of a measurement.
    pub fn get(&self, run: &str, measurement: &str, settings: &Value) -> Option<&Row> {
        self.index.get(&key(run, measurement, settings)).map(|&i| &self.rows[i])
    }

    /// Appends a row to the file in one write, and syncs it. Several processes can append at the same time. A last
    /// line without an end gets one if it is a measurement, and is removed if not.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, row: Row) -> Result<(), StudyError> {
        let mut line = serde_json::to_vec(&row)?;
        line.push(b'\n');
        self.write(&line)?;
        self.insert(row);
        Ok(())
    }

    /// Ends the last row, as [`append`](Self::append) does before it writes. The ledger of a study that was killed
    /// then has the same bytes as that of another.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn finish(&self) -> Result<(), StudyError> {
        if self.lacks_end { self.write(&[]) } else { Ok(()) }
    }

    fn write(&self, lines: &[u8]) -> Result<(), StudyError> {
        let path = &self.path;
        create_folder(path)?;
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let written = file.and_then(|mut file| {
            repair(&mut file)?;
            file.write_all(lines)?;
            file.sync_all()
        });
        Ok(written.map_err(FileError::write(path))?)
    }

    /// Keeps other studies from writing the ledger at `path` until the value is dropped or the process ends.
    /// Processes that train runs of the same study need no lock of their own.
    ///
    /// # Errors
    /// When another study writes it, or the lock, a file beside the ledger, cannot be created.
    pub fn lock(path: &Path) -> Result<LedgerLock, StudyError> {
        create_folder(path)?;
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".lock");
        let beside = path.with_file_name(name);
        let file = File::create(&beside).map_err(FileError::write(&beside))?;
        match file.try_lock() {
            Ok(()) => Ok(LedgerLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StudyError::LedgerInUse(path.into())),
            Err(TryLockError::Error(error)) => Err(FileError::write(&beside)(error).into()),
        }
    }
}

/// The right to run a study on a ledger.
#[derive(Debug)]
pub struct LedgerLock {
    /// The lock ends when the file is closed.
    _file: File,
}

/// Creates the folder of the file `path`.
fn create_folder(path: &Path) -> Result<(), FileError> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => std::fs::create_dir_all(folder).map_err(FileError::write(folder)),
        None => Ok(()),
    }
}

/// The place after the last complete line.
fn end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

/// Locks a file against other processes until it is closed. A last line without an end gets one if it is a
/// measurement, and is removed if not.
fn repair(file: &mut File) -> std::io::Result<()> {
    file.lock()?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
    }
    if last == [b'\n'] {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let end = end(&bytes);
    match serde_json::from_slice::<Row>(&bytes[end..]) {
        Ok(_) => file.write_all(b"\n"),
        Err(_) => file.set_len(end as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(run: &str, context: u64) -> Row {
        Row {
            run: run.into(),
            measurement: "loss".into(),
            settings: serde_json::json!({ "context": context }),
            values: serde_json::json!({ "nats": 0.1 + context as f64 }),
            seed: Some(1),
            device: "flex".into(),
            seconds: 0.1,
            text: String::new(),
            commit: "c".into(),
            command: "study toy".into(),
        }
    }

    #[test]
    fn a_half_line_is_dropped_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/ledger.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.append(row("a", 1)).unwrap();
        ledger.append(row("a", 2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let half = &whole[..whole.len() - 2];
        std::fs::write(&path, half).unwrap();
        let mut again = Ledger::open(&path).unwrap();
        assert_eq!(again.rows(), [row("a", 1)]);
        // reading changes nothing
        assert_eq!(std::fs::read(&path).unwrap(), half);
        again.append(row("a", 2)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(again.get("a", "loss", &row("a", 2).settings), Some(&row("a", 2)));
        assert_eq!(again.get("a", "loss", &row("a", 3).settings), None);
        std::fs::write(&path, "{}\n").unwrap();
        let error = Ledger::open(&path).unwrap_err().to_string();
        assert!(error.contains("ledger.jsonl:1: not a measurement"), "{error}");
    }

    /// A kill can leave a line without its end only.
    #[test]
    fn a_whole_line_without_an_end_counts_and_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        (1..=3).for_each(|context| ledger.append(row("a", context)).unwrap());
        let whole = std::fs::read(&path).unwrap();
        let without_end = &whole[..whole.len() - 1];
        std::fs::write(&path, without_end).unwrap();
        let mut again = Ledger::open(&path).unwrap();
        assert_eq!(again.rows(), ledger.rows());
        assert_eq!(std::fs::read(&path).unwrap(), without_end);
        again.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        std::fs::write(&path, without_end).unwrap();
        again.append(row("a", 4)).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().rows(), again.rows());
    }

    #[test]
    fn one_study_at_a_time_writes_a_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/ledger.jsonl");
        let lock = Ledger::lock(&path).unwrap();
        let error = Ledger::lock(&path).unwrap_err().to_string();
        assert!(error.contains("ledger.jsonl: another study writes this ledger"), "{error}");
        drop(lock);
        Ledger::lock(&path).unwrap();
        assert!(!path.exists());
    }
}
