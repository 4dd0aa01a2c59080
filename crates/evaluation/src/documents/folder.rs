//! The folder of an evaluation: its settings, and the results so far.

use std::path::{Path, PathBuf};

use block_transformer_collectives::{Collective, check_same};
use block_transformer_family::Precision;
use serde::{Deserialize, Serialize};

use crate::documents::book::BookIdentity;
use crate::documents::checkpoint::CheckpointInfo;
use crate::documents::measure::{BookRow, Measures};
use crate::error::EvalError;
use crate::folder::ResultFolder;

const BEGUN: &str = "evaluation.json";
const ROWS: &str = "books.jsonl";
/// The record of the book in progress.
const PARTIAL: &str = "partial.json";

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

impl Begun {
    /// Checks that all ranks have this input.
    pub(crate) fn check_same(&self, ranks: &dyn Collective) -> Result<(), EvalError> {
        let Self { settings, checkpoints, tokenizer, books } = self;
        let settings = serde_json::to_string(settings);
        let mut properties = vec![
            ("the version", env!("CARGO_PKG_VERSION").into()),
            ("the settings", settings.unwrap_or_default()),
            ("the tokenizer", tokenizer.to_string()),
            ("the number of books", books.len().to_string()),
        ];
        let checkpoint = |checkpoint: &CheckpointInfo| {
            ("the checkpoints", format!("{} {}", checkpoint.label, checkpoint.weights))
        };
        properties.extend(checkpoints.iter().map(checkpoint));
        let book = |book: &BookIdentity| ("the books", format!("{} {}", book.name, book.sha256));
        properties.extend(books.iter().map(book));
        Ok(check_same(ranks, &properties)?)
    }
}

/// What is done of an evaluation.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// The rows of the books that are done, by checkpoint.
    pub rows: Vec<Vec<BookRow>>,
    /// The book in progress.
    pub partial: Option<BookRow>,
}

/// The folder of an evaluation.
#[derive(Clone, Debug)]
pub struct EvaluationFolder {
    pub(crate) files: ResultFolder,
}

impl EvaluationFolder {
    /// The folder `dir`, which need not exist.
    pub fn new(dir: &Path) -> Self {
        Self { files: ResultFolder::new(dir) }
    }

    /// The settings of the evaluation in the folder.
    ///
    /// # Errors
    /// When there is no evaluation, or the file of its settings is damaged.
    pub fn settings(&self) -> Result<DocumentSettings, EvalError> {
        Ok(self.begun()?.settings)
    }

    fn begun(&self) -> Result<Begun, EvalError> {
        self.files.begun(BEGUN)
    }

    /// With `resume`, checks that the folder holds the evaluation `begun`. Otherwise starts it. Returns what is done.
    pub(crate) fn begin(&self, begun: &Begun, resume: bool) -> Result<Done, EvalError> {
        if resume {
            self.files.sweep();
            self.check(begun)?;
        } else {
            self.files.start(BEGUN, begun, &[ROWS, PARTIAL])?;
        }
        Ok(Done { rows: self.rows(begun)?, partial: self.files.read(PARTIAL)? })
    }

    fn check(&self, now: &Begun) -> Result<(), EvalError> {
        let then = self.begun()?;
        let refuse = |reason: String| Err(self.files.changed(reason));
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
    fn rows(&self, begun: &Begun) -> Result<Vec<Vec<BookRow>>, EvalError> {
        let (rows, count) = (self.files.lines::<BookRow>(ROWS)?, begun.books.len());
        let names = begun.checkpoints.iter().flat_map(|checkpoint| {
            begun.books.iter().map(move |book| (&checkpoint.label, &book.name))
        });
        // the evaluation may have been stopped before its last book
        let known = names.take(rows.len()).eq(rows.iter().map(|row| (&row.checkpoint, &row.book)));
        if !known {
            return Err(self.files.damaged(ROWS, "its books are not the books of the evaluation"));
        }
        let mut rows = rows.into_iter();
        Ok(begun.checkpoints.iter().map(|_| rows.by_ref().take(count).collect()).collect())
    }

    /// Records the book in progress.
    pub(crate) fn save(&self, row: &BookRow) -> Result<(), EvalError> {
        self.files.write_json(PARTIAL, row)
    }

    /// Appends the row of a book that is done, and removes its record.
    pub(crate) fn append(&self, row: &BookRow) -> Result<(), EvalError> {
        self.files.append(ROWS, row, true)?;
        self.files.remove(PARTIAL)
    }
}
