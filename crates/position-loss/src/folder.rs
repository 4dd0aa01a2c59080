//! The folder of an evaluation: what it was begun with, and what is done of it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::books::BookIdentity;
use crate::subject::About;
use crate::{Measures, PositionLossError, Tally};

const BEGUN: &str = "evaluation.json";
const ROWS: &str = "books.jsonl";
const PARTIAL: &str = "partial.json";

/// What an evaluation is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Checkpoint or run folders.
    pub checkpoints: Vec<PathBuf>,
    /// Folder or list of books; none for the recipe's.
    pub books: Option<PathBuf>,
    /// Books evaluated, from the first; none for all.
    pub limit: Option<usize>,
    /// What is measured.
    pub measures: Measures,
}

/// An evaluation that was begun: resuming it needs the very same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub settings: Settings,
    pub checkpoints: Vec<About>,
    pub tokenizer: u32,
    pub books: Vec<BookIdentity>,
}

/// A book measured with a checkpoint, or the part of it that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BookRow {
    /// The checkpoint's label.
    pub checkpoint: String,
    /// The book's name.
    pub book: String,
    /// Its tokens.
    pub tokens: usize,
    /// Bytes of its UTF-8.
    pub bytes: u64,
    /// Its words.
    pub words: u64,
    /// Its losses.
    pub tally: Tally,
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

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What the evaluation in the folder was begun with.
    ///
    /// # Errors
    /// When there is none, or its file is damaged.
    pub fn settings(&self) -> Result<Settings, PositionLossError> {
        Ok(self.begun()?.settings)
    }

    fn begun(&self) -> Result<Begun, PositionLossError> {
        match self.read(BEGUN)? {
            Some(begun) => Ok(begun),
            None => Err(PositionLossError::content(
                &self.dir,
                "there is no evaluation to resume; leave out --resume",
            )),
        }
    }

    /// Makes the folder for `begun`, or checks that it was made for the same.
    pub(crate) fn begin(&self, begun: &Begun, resume: bool) -> Result<(), PositionLossError> {
        if resume {
            return self.check(begun);
        }
        if self.file(BEGUN).exists() {
            return Err(PositionLossError::content(
                &self.dir,
                "the folder holds an evaluation already; go on with it by --resume, or give another \
                 --out",
            ));
        }
        std::fs::create_dir_all(&self.dir).map_err(PositionLossError::io(&self.dir))?;
        // left over where somebody removed the other file
        for name in [ROWS, PARTIAL] {
            let path = self.file(name);
            if path.exists() {
                std::fs::remove_file(&path).map_err(PositionLossError::io(&path))?;
            }
        }
        self.write_json(BEGUN, begun)
    }

    fn check(&self, now: &Begun) -> Result<(), PositionLossError> {
        let then = self.begun()?;
        let refuse = |what: String| {
            let reason = format!("{what}; begin anew with another --out");
            Err(PositionLossError::content(&self.dir, reason))
        };
        if then.settings != now.settings {
            return refuse("the evaluation was begun with other flags".into());
        }
        for (then, now) in then.checkpoints.iter().zip(&now.checkpoints) {
            if then != now {
                return refuse(format!(
                    "checkpoint {} is {} now, and was {} when the evaluation began",
                    then.label,
                    now.folder.display(),
                    then.folder.display()
                ));
            }
        }
        if let Some((then, _)) = then.books.iter().zip(&now.books).find(|(then, now)| then != now) {
            return refuse(format!("book {} is another than when the evaluation began", then.name));
        }
        if then != *now {
            return refuse(
                "there are other books or another tokenizer than at the beginning".into(),
            );
        }
        Ok(())
    }

    /// The rows of the books that are done. A row that was cut off by a kill is removed.
    pub(crate) fn rows(&self) -> Result<Vec<BookRow>, PositionLossError> {
        let path = self.file(ROWS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = std::fs::read(&path).map_err(PositionLossError::io(&path))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            let file = OpenOptions::new().write(true).open(&path);
            let cut = file.and_then(|file| file.set_len(whole as u64));
            cut.map_err(PositionLossError::io(&path))?;
        }
        let lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let row = |(i, line): (usize, &[u8])| {
            serde_json::from_slice(line).map_err(|e| {
                let place = PathBuf::from(format!("{}:{}", path.display(), i + 1));
                PositionLossError::content(
                    &place,
                    format!("damaged ({e}); begin anew with another --out"),
                )
            })
        };
        lines.enumerate().map(row).collect()
    }

    /// Adds the row of a book that is done.
    pub(crate) fn append(&self, row: &BookRow) -> Result<(), PositionLossError> {
        let path = self.file(ROWS);
        let line = serde_json::to_string(row).unwrap_or_default() + "\n";
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(line.as_bytes())?;
            file.sync_data()
        });
        written.map_err(PositionLossError::io(&path))
    }

    /// The book that was under way.
    pub(crate) fn partial(&self) -> Result<Option<BookRow>, PositionLossError> {
        self.read(PARTIAL)
    }

    pub(crate) fn save_partial(&self, row: &BookRow) -> Result<(), PositionLossError> {
        self.write_json(PARTIAL, row)
    }

    /// Forgets the book that was under way: it is done.
    pub(crate) fn clear_partial(&self) -> Result<(), PositionLossError> {
        let path = self.file(PARTIAL);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(PositionLossError::io(&path)(e))
            }
            _ => Ok(()),
        }
    }

    /// Writes a file of the folder, whole.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), PositionLossError> {
        Ok(block_transformer_files::write(&self.file(name), text.as_bytes())?)
    }

    pub(crate) fn write_json(
        &self,
        name: &str,
        value: &impl Serialize,
    ) -> Result<(), PositionLossError> {
        self.write(name, &(serde_json::to_string_pretty(value).unwrap_or_default() + "\n"))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, PositionLossError> {
        let path = self.file(name);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(PositionLossError::io(&path))?;
        serde_json::from_str(&text).map(Some).map_err(|e| {
            PositionLossError::content(
                &path,
                format!("damaged ({e}); begin anew with another --out"),
            )
        })
    }
}
