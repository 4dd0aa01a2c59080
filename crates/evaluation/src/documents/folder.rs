//! The folder of an evaluation: its settings, and the results so far.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use block_transformer_family::Precision;
use block_transformer_files::{FileError, sweep, write};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::documents::book::BookIdentity;
use crate::documents::checkpoint::CheckpointInfo;
use crate::documents::measure::{BookRow, Measures};
use crate::error::EvalError;

const BEGUN: &str = "evaluation.json";
const ROWS: &str = "books.jsonl";
/// The record of the book in progress.
pub(crate) const PARTIAL: &str = "partial.json";

/// Settings of an evaluation on documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentSettings {
    /// Folders of checkpoints or runs.
    pub checkpoints: Vec<PathBuf>,
    /// Folder or list of books; `None` when the caller chose the books in another way.
    pub books: Option<PathBuf>,
    /// Number of books to evaluate, starting with the first; `None` for all.
    pub limit: Option<usize>,
    /// The measurements.
    pub measures: Measures,
    /// The formats of weights and caches. [`Precision::F32`] in folders of older versions.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
}

/// The input of an evaluation, which can only be resumed with the same input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub settings: DocumentSettings,
    pub checkpoints: Vec<CheckpointInfo>,
    pub tokenizer: u32,
    pub books: Vec<BookIdentity>,
}

/// The folder of an evaluation.
#[derive(Clone, Debug)]
pub struct EvaluationFolder {
    dir: PathBuf,
}

impl EvaluationFolder {
    /// The folder `dir`, which need not exist.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// The path of a file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The settings of the evaluation in the folder.
    ///
    /// # Errors
    /// When there is no evaluation, or the file of its settings is damaged.
    pub fn settings(&self) -> Result<DocumentSettings, EvalError> {
        Ok(self.begun()?.settings)
    }

    fn begun(&self) -> Result<Begun, EvalError> {
        self.read(BEGUN)?.ok_or_else(|| EvalError::NotBegun(self.dir.clone()))
    }

    /// With `resume`, checks that the folder holds the evaluation `begun`. Otherwise starts it.
    pub(crate) fn begin(&self, begun: &Begun, resume: bool) -> Result<(), EvalError> {
        if resume {
            sweep(&self.dir);
            return self.check(begun);
        }
        if self.file(BEGUN).exists() {
            return Err(EvalError::AlreadyBegun(self.dir.clone()));
        }
        fs::create_dir_all(&self.dir).map_err(FileError::write(&self.dir))?;
        // rows that are left from an evaluation whose settings were deleted
        self.remove(ROWS)?;
        self.remove(PARTIAL)?;
        self.write_json(BEGUN, begun)
    }

    fn check(&self, now: &Begun) -> Result<(), EvalError> {
        let then = self.begun()?;
        let refuse = |reason: String| {
            Err(EvalError::NotResumable { place: self.dir.display().to_string(), reason })
        };
        if then.settings != now.settings {
            return refuse("the evaluation was begun with other settings".into());
        }
        let mut checkpoints = then.checkpoints.iter().zip(&now.checkpoints);
        if let Some((then, now)) = checkpoints.find(|(then, now)| then != now) {
            return refuse(format!(
                "checkpoint {} is {} now, and was {} when the evaluation began",
                then.label,
                now.folder.display(),
                then.folder.display()
            ));
        }
        if let Some((then, _)) = then.books.iter().zip(&now.books).find(|(then, now)| then != now) {
            return refuse(format!("book {} has changed since the evaluation began", then.name));
        }
        let others = "the tokenizer or the number of books has changed since the evaluation began";
        if then == *now { Ok(()) } else { refuse(others.into()) }
    }

    /// The rows of the books that are done, by checkpoint. If the process was killed while it wrote
    /// the last row, this incomplete row is removed from the file.
    pub(crate) fn rows(&self, begun: &Begun) -> Result<Vec<Vec<BookRow>>, EvalError> {
        let (rows, count) = (self.flat_rows()?, begun.books.len());
        let names = begun.checkpoints.iter().flat_map(|checkpoint| {
            begun.books.iter().map(move |book| (&checkpoint.label, &book.name))
        });
        // the evaluation may have been stopped before its last book
        let known = names.take(rows.len()).eq(rows.iter().map(|row| (&row.checkpoint, &row.book)));
        if !known {
            return Err(self.damaged(ROWS, "its books are not the books of the evaluation"));
        }
        let mut rows = rows.into_iter();
        Ok(begun.checkpoints.iter().map(|_| rows.by_ref().take(count).collect()).collect())
    }

    fn flat_rows(&self) -> Result<Vec<BookRow>, EvalError> {
        let path = self.file(ROWS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = fs::read(&path).map_err(FileError::read(&path))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            let file = OpenOptions::new().write(true).open(&path);
            let cut = file.and_then(|file| file.set_len(whole as u64));
            cut.map_err(FileError::write(&path))?;
        }
        let lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let row = |(i, line): (usize, &[u8])| {
            serde_json::from_slice(line)
                .map_err(|e| self.damaged(&format!("{ROWS}:{}", i + 1), &e.to_string()))
        };
        lines.enumerate().map(row).collect()
    }

    /// Appends the row of a book that is done.
    pub(crate) fn append(&self, row: &BookRow) -> Result<(), EvalError> {
        let path = self.file(ROWS);
        let append = || {
            let line = serde_json::to_string(row)? + "\n";
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(line.as_bytes())?;
            file.sync_data()
        };
        Ok(append().map_err(FileError::write(&path))?)
    }

    /// Writes a file of the folder completely or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), EvalError> {
        Ok(write(&self.file(name), bytes)?)
    }

    pub(crate) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), EvalError> {
        let path = self.file(name);
        let text = serde_json::to_string_pretty(value);
        let text = text.map_err(|e| FileError::write(&path)(e.into()))? + "\n";
        self.write(name, text.as_bytes())
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, EvalError> {
        let path = self.file(name);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(FileError::read(&path))?;
        serde_json::from_str(&text).map(Some).map_err(|e| self.damaged(name, &e.to_string()))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), EvalError> {
        let path = self.file(name);
        if path.exists() {
            fs::remove_file(&path).map_err(FileError::write(&path))?;
        }
        Ok(())
    }

    fn damaged(&self, name: &str, reason: &str) -> EvalError {
        let place = format!("{} is damaged", self.file(name).display());
        EvalError::NotResumable { place, reason: reason.into() }
    }
}
