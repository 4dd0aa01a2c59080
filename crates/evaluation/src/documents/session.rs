//! The books of a checkpoint, batch by batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use block_transformer_collectives::{Collective, share_in_order};
use block_transformer_family::Family;
use block_transformer_text::Tokenizer;

use crate::documents::book::BookText;
use crate::documents::evaluate::Observer;
use crate::documents::folder::EvaluationFolder;
use crate::documents::measure::{BookBatch, BookRow, BookScorer, Tally};
use crate::error::EvalError;
use crate::score::BatchScores;

/// Time between records of the book in progress. If the process is killed, it loses at most the
/// work of this time and of the current batch.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// An evaluation from the point where it began or goes on.
pub(super) struct Session<'a> {
    pub ranks: &'a dyn Collective,
    /// `None` on ranks that write nothing.
    pub folder: Option<&'a EvaluationFolder>,
    pub tokenizer: &'a Tokenizer,
    /// The book that was in progress when the evaluation was stopped.
    pub partial: Option<BookRow>,
    /// Bytes of the finished books. A book counts once for each checkpoint.
    pub done: u64,
    /// Bytes of all books, counted in the same way.
    pub total: u64,
    pub observer: &'a mut dyn Observer,
}

/// A batch of a book, or a book without batches.
struct Work<'a> {
    book: &'a BookText,
    ids: Arc<[u32]>,
    /// With the first batch: the row of the book, with the part that is done.
    row: Option<BookRow>,
    batch: Option<BookBatch>,
    is_last: bool,
}

impl Session<'_> {
    /// Scores books, starting from the part that is done, and appends their rows to `rows`.
    pub(super) fn evaluate<M: Family>(
        &mut self,
        checkpoint: &str,
        books: &[BookText],
        scorer: &BookScorer<M>,
        rows: &mut Vec<BookRow>,
    ) -> Result<(), EvalError> {
        let (ranks, tokenizer) = (self.ranks, self.tokenizer);
        // if the process was killed after it appended a row and before it removed the record, this
        // is the record of a finished book
        let mut partial = self.partial.take();
        let works = books.iter().flat_map(|book| {
            match works(checkpoint, book, partial.take(), tokenizer, scorer) {
                Ok(works) => works.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        });
        let score = |work: &Work<'_>| {
            let scores = work.batch.as_ref().map(|batch| scorer.score_batch(&work.ids, batch));
            let scores = scores.transpose().map_err(|error| EvalError::Book {
                book: work.book.identity.name.clone(),
                checkpoint: checkpoint.into(),
                source: Box::new(error),
            })?;
            Ok(BatchScores(scores.unwrap_or_default()))
        };
        let (mut current, mut saved) = (None, None::<Instant>);
        share_in_order(ranks, works, score, |work, BatchScores(scores)| {
            let Work { book, row, batch, is_last, .. } = work;
            if row.is_some() {
                (current, saved) = (row, None);
            }
            let Some(row) = &mut current else { return Ok(()) };
            if let Some(batch) = batch {
                scorer.add(&mut row.tally, &batch, &scores);
                self.report(book, row, scorer.work(row.tokens), batch.tokens);
                if let Some(folder) = self.folder
                    && saved.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY)
                {
                    folder.save(row)?;
                    saved = Some(Instant::now());
                }
            }
            if is_last && let Some(row) = current.take() {
                self.observer.book(&row);
                if let Some(folder) = self.folder {
                    folder.append(&row)?;
                }
                rows.push(row);
                self.done += book.identity.bytes;
            }
            Ok(())
        })
    }

    /// Reports a batch of `tokens` tokens to the observer. The book has `work` windows.
    fn report(&mut self, book: &BookText, row: &BookRow, work: usize, tokens: usize) {
        let part = (row.tally.windows + row.tally.rolling_windows) as u64;
        let done = self.done + book.identity.bytes * part / work.max(1) as u64;
        self.observer.batch(tokens, done, self.total);
    }
}

/// The batches of a book, without those that `partial` records.
fn works<'a, M: Family>(
    checkpoint: &str,
    book: &'a BookText,
    partial: Option<BookRow>,
    tokenizer: &Tokenizer,
    scorer: &BookScorer<M>,
) -> Result<Vec<Work<'a>>, EvalError> {
    let name = &book.identity.name;
    let ids = book.tokens(tokenizer)?;
    let of_this = |partial: &BookRow| partial.checkpoint == checkpoint && partial.book == *name;
    let tally = partial.filter(of_this).map_or_else(Tally::default, |partial| partial.tally);
    let row = BookRow {
        checkpoint: checkpoint.into(),
        book: name.clone(),
        tokens: ids.len(),
        bytes: book.text.len() as u64,
        words: book.words(),
        tally: scorer.sized(tally),
    };
    let batches: Vec<BookBatch> = scorer.batches(ids.len(), &row.tally).collect();
    let (count, ids) = (batches.len().max(1), Arc::<[u32]>::from(ids));
    let (mut batches, mut row) = (batches.into_iter(), Some(row));
    let work = |i| Work {
        book,
        ids: ids.clone(),
        row: row.take(),
        batch: batches.next(),
        is_last: i + 1 == count,
    };
    Ok((0..count).map(work).collect())
}
