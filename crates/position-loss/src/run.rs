//! An evaluation from its first book, or from where it stopped, to its end.

use std::path::Path;
use std::time::{Duration, Instant};

use block_transformer_text::Tokenizer;
use burn::tensor::Device;

use crate::books::{Book, BookIdentity};
use crate::folder::{Begun, BookRow, EvaluationFolder, Settings};
use crate::subject::{Subject, Subjects};
use crate::{Meter, PositionLossError, Report, Tally, output};

/// Work of a book that a kill costs at most, beside the batch at hand.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// Hears how an evaluation goes on.
pub trait Watch {
    /// `tokens` more were run through the model, and `share` of all work is done.
    fn advance(&mut self, tokens: usize, share: f64);
    /// A line on a checkpoint or a book that is done.
    fn note(&mut self, text: &str);
}

/// Evaluates `subjects` on books into the folder `out`, where every book is kept as it is done:
/// with `resume`, those are not done again, and the files at the end are the same to the byte.
///
/// # Errors
/// When a choice cannot be, `out` holds another evaluation, a book or a checkpoint is unfit, or the
/// disk refuses.
pub fn evaluate(
    settings: &Settings,
    subjects: &Subjects,
    books: &[Book],
    out: &Path,
    resume: bool,
    device: &Device,
    watch: &mut dyn Watch,
) -> Result<Report, PositionLossError> {
    let (subjects, tokenizer) = (&subjects.all, &subjects.tokenizer);
    check(settings, subjects)?;
    let books = &books[..books.len().min(settings.limit.unwrap_or(usize::MAX))];
    let begun = Begun {
        settings: settings.clone(),
        checkpoints: subjects.iter().map(|subject| subject.about.clone()).collect(),
        tokenizer: tokenizer.fingerprint()?,
        books: books.iter().map(Book::identity).collect::<Result<_, _>>()?,
    };
    let folder = EvaluationFolder::new(out);
    folder.begin(&begun, resume)?;
    let rows = folder.rows()?;
    check_rows(&rows, &begun, out)?;
    let partial = folder.partial()?;
    let mut run = Run { begun: &begun, folder: &folder, tokenizer, rows, partial, watch };
    for (i, subject) in subjects.iter().enumerate() {
        // a checkpoint whose books are all done is not loaded
        if run.rows.len() < (i + 1) * books.len() {
            run.subject(subject, books, device)?;
        }
    }
    let report = Report::new(&begun.checkpoints, &settings.measures, &run.rows)?;
    output::write(&folder, &report)?;
    Ok(report)
}

fn check(settings: &Settings, subjects: &[Subject]) -> Result<(), PositionLossError> {
    let Settings { measures, limit, .. } = settings;
    for (flag, value) in [
        ("--context", measures.windows.context),
        ("--stride", measures.windows.stride),
        ("--batch", measures.batch),
        ("--limit", limit.unwrap_or(1)),
    ] {
        if value == 0 {
            return Err(PositionLossError::Choice(format!("{flag}: must be at least 1")));
        }
    }
    subjects.iter().try_for_each(|subject| subject.about.check(&measures.windows))
}

/// The order in which books are done is fixed, so what is done is the beginning of it.
fn check_rows(rows: &[BookRow], begun: &Begun, out: &Path) -> Result<(), PositionLossError> {
    let order = begun
        .checkpoints
        .iter()
        .flat_map(|checkpoint| begun.books.iter().map(move |book| (&checkpoint.label, &book.name)));
    let expected: Vec<_> = order.take(rows.len()).collect();
    let found: Vec<_> = rows.iter().map(|row| (&row.checkpoint, &row.book)).collect();
    if found == expected {
        return Ok(());
    }
    let reason = "books.jsonl holds other books than the evaluation; begin anew with another --out";
    Err(PositionLossError::content(out, reason))
}

struct Run<'a> {
    begun: &'a Begun,
    folder: &'a EvaluationFolder,
    tokenizer: &'a Tokenizer,
    rows: Vec<BookRow>,
    partial: Option<BookRow>,
    watch: &'a mut dyn Watch,
}

impl Run<'_> {
    /// The books that are not done yet with a checkpoint.
    fn subject(
        &mut self,
        subject: &Subject,
        books: &[Book],
        device: &Device,
    ) -> Result<(), PositionLossError> {
        let model = subject.checkpoint.load_model(device)?;
        let measures = self.begun.settings.measures;
        let meter = Meter::new(&model, &subject.checkpoint.config, measures, device)?;
        let done = self.rows.len() % books.len().max(1);
        for book in &books[done..] {
            self.book(subject, book, &meter)?;
        }
        Ok(())
    }

    fn book(
        &mut self,
        subject: &Subject,
        book: &Book,
        meter: &Meter<'_>,
    ) -> Result<(), PositionLossError> {
        let text = book.tokens(self.tokenizer)?;
        let mut row = BookRow {
            checkpoint: subject.about.label.clone(),
            book: book.name.clone(),
            tokens: text.ids.len(),
            bytes: text.bytes,
            words: text.words,
            tally: Tally::default(),
        };
        if let Some(partial) = self.partial.take() {
            // one of another book is of a book that is done since
            if (&partial.checkpoint, &partial.book) == (&row.checkpoint, &row.book) {
                row.tally = partial.tally;
            }
        }
        let (done, total) = self.bytes_done();
        let work = meter.work(row.tokens).max(1) as f64;
        let size = self.begun.books[self.rows.len() % self.begun.books.len()].bytes as f64;
        let (folder, watch) = (self.folder, &mut *self.watch);
        let mut saved: Option<Instant> = None;
        let about = row.clone();
        let measured = meter.measure(&text.ids, row.tally, |tally, tokens| {
            let share = (tally.windows + tally.rolled) as f64 / work;
            watch.advance(tokens, (done + share * size) / total);
            if saved.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY) {
                folder.save_partial(&BookRow { tally: tally.clone(), ..about.clone() })?;
                saved = Some(Instant::now());
            }
            Ok(())
        });
        row.tally = measured.map_err(|error| match error {
            PositionLossError::Model(source) => PositionLossError::Score {
                book: book.name.clone(),
                checkpoint: subject.about.label.clone(),
                source,
            },
            other => other,
        })?;
        self.watch.note(&line(&row));
        self.folder.append(&row)?;
        self.folder.clear_partial()?;
        self.rows.push(row);
        Ok(())
    }

    /// Bytes of the books that are done, and of all, each counted for each checkpoint: what the
    /// work is measured by before all is tokenized.
    fn bytes_done(&self) -> (f64, f64) {
        let sizes: Vec<f64> =
            self.begun.books.iter().map(|BookIdentity { bytes, .. }| *bytes as f64).collect();
        let all: f64 = sizes.iter().sum();
        let rest = self.rows.len() % sizes.len().max(1);
        let whole = (self.rows.len() / sizes.len().max(1)) as f64;
        let total = all * self.begun.checkpoints.len() as f64;
        (whole * all + sizes[..rest].iter().sum::<f64>(), total.max(1.0))
    }
}

fn line(row: &BookRow) -> String {
    let Tally { windows, predicted, nats, .. } = &row.tally;
    let loss = match predicted {
        0 => String::new(),
        _ => format!(", {:.4} nats a token", nats / *predicted as f64),
    };
    let windows = match windows {
        0 => "shorter than a window".to_string(),
        1 => "1 window".to_string(),
        n => format!("{n} windows"),
    };
    format!("{}: {}, {} tokens, {windows}{loss}", row.checkpoint, row.book, row.tokens)
}
