//! An evaluation of checkpoints on books, from its start or from the point where it was stopped.

use std::path::Path;

use block_transformer_collectives::{Alone, Collective, of_rank_0};
use block_transformer_family::{CacheFormat, Conditioning, Family, FamilyConfig};
use burn::tensor::Device;

use crate::documents::book::{Book, BookText};
use crate::documents::checkpoint::{OpenCheckpoint, OpenCheckpoints};
use crate::documents::folder::{Begun, DocumentSettings, Done, EvaluationFolder};
use crate::documents::measure::{BookRow, BookScorer, Measures};
use crate::documents::output;
use crate::documents::report::PositionReport;
use crate::documents::session::Session;
use crate::documents::windows::Windows;
use crate::error::EvalError;
use crate::score::Scorer;

/// Receives the progress of an evaluation.
pub trait Observer {
    /// Called after each batch: `tokens` were run through the model, and `done` of `total` bytes of
    /// text are evaluated. The text counts once for each checkpoint.
    fn batch(&mut self, tokens: usize, done: u64, total: u64);
    /// Called after each book.
    fn book(&mut self, row: &BookRow);
}

/// An evaluation of checkpoints on books, whose results are written to a folder.
pub struct DocumentEvaluation<'a> {
    /// The settings.
    pub settings: &'a DocumentSettings,
    /// The checkpoints.
    pub checkpoints: &'a OpenCheckpoints,
    /// The books.
    pub books: &'a [Book],
    /// The folder of the results.
    pub out: &'a Path,
    /// Whether the evaluation in the folder goes on.
    pub resume: bool,
    /// The device that computes.
    pub device: &'a Device,
    /// The ranks that share the batches. Rank 0 reads and writes the folder.
    pub ranks: &'a dyn Collective,
}

/// Evaluates checkpoints on books and writes the results to the folder `out`, on one rank. See
/// [`DocumentEvaluation::run`].
///
/// # Errors
/// Those of [`DocumentEvaluation::run`].
pub fn evaluate(
    settings: &DocumentSettings,
    checkpoints: &OpenCheckpoints,
    books: &[Book],
    out: &Path,
    resume: bool,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<PositionReport, EvalError> {
    let ranks = &Alone;
    DocumentEvaluation { settings, checkpoints, books, out, resume, device, ranks }.run(observer)
}

impl DocumentEvaluation<'_> {
    /// Evaluates the checkpoints. The result of each book is written as soon as the book is done. With `resume`,
    /// finished books are not evaluated again, and the files at the end are identical to the files of an
    /// uninterrupted evaluation, on any number of ranks. The text of all books is held in memory. All ranks get the
    /// report.
    ///
    /// # Errors
    /// - The settings are invalid.
    /// - Without `resume`, `out` already holds an evaluation.
    /// - With `resume`, `out` does not hold this evaluation.
    /// - A book or a checkpoint cannot be used, the device fails, or a file cannot be written.
    /// - A rank has another input or has left.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<PositionReport, EvalError> {
        let Self { settings, checkpoints, ranks, .. } = *self;
        check(settings, checkpoints)?;
        let limit = settings.limit.unwrap_or(usize::MAX);
        let books: Vec<BookText> =
            self.books.iter().take(limit).map(Book::read).collect::<Result<_, _>>()?;
        let begun = Begun {
            settings: settings.clone(),
            checkpoints: checkpoints.all.iter().map(|opened| opened.info.clone()).collect(),
            tokenizer: checkpoints.tokenizer.fingerprint()?,
            books: books.iter().map(|book| book.identity.clone()).collect(),
        };
        begun.check_same(ranks)?;
        let folder = (ranks.rank() == 0).then(|| EvaluationFolder::new(self.out));
        let begin = || match &folder {
            Some(folder) => folder.begin(&begun, self.resume),
            None => Ok(Done::default()),
        };
        let Done { mut rows, partial } = of_rank_0(ranks, begin)?;
        let bytes = |books: &[BookText]| books.iter().map(|book| book.identity.bytes).sum::<u64>();
        let mut session = Session {
            ranks,
            folder: folder.as_ref(),
            tokenizer: &checkpoints.tokenizer,
            partial,
            done: rows.iter().map(|rows| bytes(&books[..rows.len()])).sum(),
            total: bytes(&books) * checkpoints.all.len() as u64,
            observer,
        };
        for (opened, rows) in checkpoints.all.iter().zip(&mut rows) {
            // a checkpoint is not loaded if all its books are done
            if rows.len() == books.len() {
                continue;
            }
            let model = opened.checkpoint.load_model(self.device)?;
            let model = model.with_precision(settings.precision).prepared();
            let mut scorer = Scorer::new(&model);
            if settings.precision.cache() != CacheFormat::F32 {
                scorer = scorer.with_cache(settings.precision.cache())?;
            }
            let scorer = BookScorer::new(scorer, settings.measures)?;
            session.evaluate(&opened.info.label, &books[rows.len()..], &scorer, rows)?;
        }
        let mut report = PositionReport::new(&begun.checkpoints, &settings.measures, &rows)?;
        report.precision = settings.precision;
        if let Some(folder) = &folder {
            output::write(folder, &report)?;
        }
        Ok(report)
    }
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
