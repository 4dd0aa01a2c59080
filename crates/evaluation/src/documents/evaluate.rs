//! An evaluation of checkpoints on books, from its start or from the point where it was stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use block_transformer_family::{CacheFormat, Conditioning, Family, FamilyConfig};
use block_transformer_text::Tokenizer;
use burn::tensor::Device;

use crate::documents::book::{Book, BookText};
use crate::documents::checkpoint::{OpenCheckpoint, OpenCheckpoints};
use crate::documents::folder::{Begun, DocumentSettings, EvaluationFolder, PARTIAL};
use crate::documents::measure::{BookRow, BookScorer, Measures, Tally};
use crate::documents::output;
use crate::documents::report::PositionReport;
use crate::documents::windows::Windows;
use crate::error::EvalError;
use crate::score::Scorer;

/// Time between records of the book in progress. If the process is killed, it loses at most the
/// work of this time and of the current batch.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// Receives the progress of an evaluation.
pub trait Observer {
    /// Called after each batch: `tokens` were run through the model, and `done` of `total` bytes of
    /// text are evaluated. The text counts once for each checkpoint.
    fn batch(&mut self, tokens: usize, done: u64, total: u64);
    /// Called after each book.
    fn book(&mut self, row: &BookRow);
}

/// Evaluates checkpoints on books and writes the results to the folder `out`. The result of each
/// book is written as soon as the book is done. With `resume`, finished books are not evaluated
/// again, and the files at the end are identical to the files of an uninterrupted evaluation. The
/// text of all books is held in memory.
///
/// # Errors
/// - The settings are invalid.
/// - Without `resume`, `out` already holds an evaluation.
/// - With `resume`, `out` does not hold this evaluation.
/// - A book or a checkpoint cannot be used, the device fails, or a file cannot be written.
pub fn evaluate(
    settings: &DocumentSettings,
    checkpoints: &OpenCheckpoints,
    books: &[Book],
    out: &Path,
    resume: bool,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<PositionReport, EvalError> {
    check(settings, checkpoints)?;
    let limit = settings.limit.unwrap_or(usize::MAX);
    let books: Vec<BookText> =
        books.iter().take(limit).map(Book::read).collect::<Result<_, _>>()?;
    let begun = Begun {
        settings: settings.clone(),
        checkpoints: checkpoints.all.iter().map(|opened| opened.info.clone()).collect(),
        tokenizer: checkpoints.tokenizer.fingerprint()?,
        books: books.iter().map(|book| book.identity.clone()).collect(),
    };
    let folder = EvaluationFolder::new(out);
    folder.begin(&begun, resume)?;
    let mut rows = folder.rows(&begun)?;
    let bytes = |books: &[BookText]| books.iter().map(|book| book.identity.bytes).sum::<u64>();
    let mut session = Session {
        folder: &folder,
        tokenizer: &checkpoints.tokenizer,
        partial: folder.files.read(PARTIAL)?,
        done: rows.iter().map(|rows| bytes(&books[..rows.len()])).sum(),
        total: bytes(&books) * checkpoints.all.len() as u64,
        observer,
    };
    for (opened, rows) in checkpoints.all.iter().zip(&mut rows) {
        // a checkpoint is not loaded if all its books are done
        if rows.len() == books.len() {
            continue;
        }
        let model =
            opened.checkpoint.load_model(device)?.with_precision(settings.precision).prepared();
        let mut scorer = Scorer::new(&model);
        if settings.precision.cache() != CacheFormat::F32 {
            scorer = scorer.with_cache(settings.precision.cache())?;
        }
        let scorer = BookScorer::new(scorer, settings.measures)?;
        for book in &books[rows.len()..] {
            let row = session.book(&opened.info.label, book, &scorer)?;
            session.observer.book(&row);
            folder.append(&row)?;
            folder.files.remove(PARTIAL)?;
            rows.push(row);
            session.done += book.identity.bytes;
        }
    }
    let mut report = PositionReport::new(&begun.checkpoints, &settings.measures, &rows)?;
    report.precision = settings.precision;
    output::write(&folder, &report)?;
    Ok(report)
}

fn check(settings: &DocumentSettings, checkpoints: &OpenCheckpoints) -> Result<(), EvalError> {
    let DocumentSettings { measures: Measures { windows, batch, .. }, limit, .. } = *settings;
    let Windows { context, stride } = windows;
    let limit = limit.unwrap_or(1);
    let counts = [("context", context), ("stride", stride), ("batch", batch), ("limit", limit)];
    if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
        return Err(EvalError::Zero(name));
    }
    for OpenCheckpoint { info, checkpoint, .. } in &checkpoints.all {
        let token = checkpoint.config.stacks().token;
        let is_t5 = token.is_some_and(|token| token.conditioning == Conditioning::CrossAttention);
        if is_t5 && settings.precision.cache() != CacheFormat::F32 {
            return Err(EvalError::Cache);
        }
        let block_length = info.block_length;
        if !context.is_multiple_of(block_length) || context <= block_length {
            let checkpoint = info.folder.clone();
            return Err(EvalError::Windows { context, block_length, checkpoint });
        }
    }
    Ok(())
}

struct Session<'a> {
    folder: &'a EvaluationFolder,
    tokenizer: &'a Tokenizer,
    /// The book that was in progress when the evaluation was stopped.
    partial: Option<BookRow>,
    /// Bytes of the finished books. A book counts once for each checkpoint.
    done: u64,
    /// Bytes of all books, counted in the same way.
    total: u64,
    observer: &'a mut dyn Observer,
}

impl Session<'_> {
    /// Scores a book, starting from the part that is done.
    fn book<M: Family>(
        &mut self,
        checkpoint: &str,
        book: &BookText,
        scorer: &BookScorer<M>,
    ) -> Result<BookRow, EvalError> {
        let name = &book.identity.name;
        let ids = book.tokens(self.tokenizer)?;
        let mut row = BookRow {
            checkpoint: checkpoint.into(),
            book: name.clone(),
            tokens: ids.len(),
            bytes: book.text.len() as u64,
            words: book.words(),
            tally: Tally::default(),
        };
        // if the process was killed after it appended a row and before it removed the record, this
        // is the record of a finished book
        let partial = self.partial.take();
        let of_this = |partial: &BookRow| partial.checkpoint == checkpoint && partial.book == *name;
        let tally = partial.filter(of_this).map_or_else(Tally::default, |partial| partial.tally);
        let work = scorer.work(row.tokens).max(1) as u64;
        let mut saved: Option<Instant> = None;
        let step = |tally: &Tally, tokens| {
            let part = (tally.windows + tally.rolling_windows) as u64;
            let done = self.done + book.identity.bytes * part / work;
            self.observer.batch(tokens, done, self.total);
            if saved.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY) {
                row.tally = tally.clone();
                self.folder.files.write_json(PARTIAL, &row)?;
                saved = Some(Instant::now());
            }
            Ok(())
        };
        let scored = scorer.score(&ids, tally, step);
        row.tally = scored.map_err(|error| match error {
            EvalError::File(_) => error,
            error => EvalError::Book {
                book: name.clone(),
                checkpoint: checkpoint.into(),
                source: Box::new(error),
            },
        })?;
        Ok(row)
    }
}
