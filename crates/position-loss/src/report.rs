//! What the losses of books add up to.

use std::ops::Range;

use serde::Serialize;

use crate::bands::bands;
use crate::bootstrap::{Bootstrap, RESAMPLES};
use crate::folder::BookRow;
use crate::samples::Samples;
use crate::subject::About;
use crate::{Measures, PositionLossError, Windows};

/// A number measured on books, and how far it would vary on other books.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard error by bootstrap over books; none of a single book.
    pub standard_error: Option<f64>,
}

/// The results of an evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The windows.
    pub windows: Windows,
    /// Sets of books the standard errors are of.
    pub resamples: usize,
    /// The first position that every checkpoint predicts, at a block boundary of each.
    pub common_from: usize,
    /// The books.
    pub books: Vec<BookReport>,
    /// The checkpoints, as given.
    pub checkpoints: Vec<CheckpointReport>,
    /// Label of the checkpoint that differences are from: the first vanilla one, or the first.
    pub baseline: String,
    /// Loss by octave of positions, from `common_from` on.
    pub octaves: Vec<Octave>,
    /// What a reader must know besides.
    pub notes: Vec<String>,
}

/// A book.
#[derive(Clone, Debug, Serialize)]
pub struct BookReport {
    /// Its name.
    pub name: String,
    /// Its tokens.
    pub tokens: usize,
    /// Bytes of its UTF-8.
    pub bytes: u64,
    /// Its words.
    pub words: u64,
    /// Windows in it; none makes no part in the curve.
    pub windows: usize,
    /// Tokens in no window.
    pub unused_tokens: usize,
}

/// A checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointReport {
    /// What it is.
    #[serde(flatten)]
    pub about: About,
    /// Whether windows are longer than what it was trained with.
    pub beyond_trained_context: bool,
    /// All books, every token predicted once; none where that was left out.
    pub documents: Option<DocumentReport>,
    /// Mean loss of a window's tokens from `common_from` on, in nats.
    pub common_loss: Option<Estimate>,
    /// What `common_loss` is above the baseline's.
    pub difference: Option<Estimate>,
    /// Mean loss at each place of a block, from `common_from` on.
    pub by_place: Vec<Estimate>,
    /// How far the loss falls along the window.
    pub fall: Option<Fall>,
    /// Loss at each position.
    #[serde(skip)]
    pub curve: Curve,
    /// Loss in narrow bands, each at its middle position.
    #[serde(skip)]
    pub smoothed: Vec<(f64, Estimate)>,
}

/// Loss over whole books.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DocumentReport {
    /// Tokens predicted: all.
    pub tokens: u64,
    /// Their loss in nats.
    pub nats: f64,
    /// Nats a token.
    pub loss: Estimate,
    /// `nats / ln 2` over the bytes of the text.
    pub bits_per_byte: f64,
    /// `exp(nats / words)`: PG19's own measure, which no tokenizer changes (Rae et al., arXiv
    /// 1911.05507; a word is a run of characters that are not white space).
    pub word_perplexity: f64,
}

/// The loss early in a window less that late in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fall {
    /// Early positions.
    pub early: Range<usize>,
    /// Late positions.
    pub late: Range<usize>,
    /// Nats.
    pub by: Estimate,
}

/// Positions from one to twice as far, and the losses there.
#[derive(Clone, Debug, Serialize)]
pub struct Octave {
    /// The positions.
    pub positions: Range<usize>,
    /// Mean loss of each checkpoint.
    pub losses: Vec<Estimate>,
    /// What each is above the baseline's.
    pub differences: Vec<Estimate>,
}

/// Loss by position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Windows the means are over.
    pub windows: u64,
    /// At each position of a window; none where nothing is predicted.
    pub positions: Vec<Option<Estimate>>,
}

impl Report {
    /// The results of `rows`: every book, in one order, for each of `checkpoints`.
    ///
    /// # Errors
    /// When nothing was measured: no book has a token, or none a window and only windows were asked
    /// for.
    pub fn new(
        checkpoints: &[About],
        measures: &Measures,
        rows: &[BookRow],
    ) -> Result<Self, PositionLossError> {
        let windows = measures.windows;
        let each = rows.len() / checkpoints.len().max(1);
        let by_checkpoint: Vec<&[BookRow]> = rows.chunks(each.max(1)).collect();
        let books: Vec<BookReport> = rows[..each].iter().map(|row| book(row, &windows)).collect();
        check(&books, measures)?;
        let lengths = checkpoints.iter().map(|about| about.block_length);
        let common_from = lengths.fold(1, least_common_multiple);
        let samples: Vec<Samples> =
            by_checkpoint.iter().map(|rows| Samples::of_windows(rows)).collect();
        let baseline = checkpoints.iter().position(|about| about.family == "vanilla").unwrap_or(0);
        let common = common_from..windows.context.max(common_from);
        let parts = bands(common_from, windows.context, 1, common_from);
        let fall = early_and_late(&parts, windows.context);
        let report = |i: usize| {
            let (about, sample): (&About, &Samples) = (&checkpoints[i], &samples[i]);
            let above = (i != baseline).then(|| sample.less(&samples[baseline]));
            let places = if common_from > 1 { 0..common_from } else { 0..0 };
            CheckpointReport {
                about: about.clone(),
                beyond_trained_context: windows.context > about.trained_context,
                documents: measures.documents.then(|| documents(by_checkpoint[i])),
                common_loss: sample.mean(&common),
                difference: above.and_then(|above| above.mean(&common)),
                by_place: places.filter_map(|j| sample.place(&common, j, common_from)).collect(),
                fall: fall.as_ref().and_then(|(early, late)| sample.fall(early, late)),
                curve: sample.curve(about.block_length),
                smoothed: sample.smoothed(about.block_length, common_from, windows.context),
            }
        };
        let octave = |positions: Range<usize>| {
            let mean = |sample: &Samples| sample.mean(&positions);
            let above = |sample: &Samples| sample.less(&samples[baseline]).mean(&positions);
            Octave {
                losses: samples.iter().filter_map(mean).collect(),
                differences: samples.iter().filter_map(above).collect(),
                positions: positions.clone(),
            }
        };
        let measured = books.iter().any(|book| book.windows > 0);
        let mut report = Self {
            windows,
            resamples: RESAMPLES,
            common_from,
            books,
            checkpoints: (0..checkpoints.len()).map(report).collect(),
            baseline: checkpoints[baseline].label.clone(),
            octaves: if measured { parts.into_iter().map(octave).collect() } else { Vec::new() },
            notes: Vec::new(),
        };
        report.notes = notes(&report);
        Ok(report)
    }
}

fn book(row: &BookRow, windows: &Windows) -> BookReport {
    BookReport {
        name: row.book.clone(),
        tokens: row.tokens,
        bytes: row.bytes,
        words: row.words,
        windows: row.tally.windows,
        unused_tokens: windows.unused(row.tokens),
    }
}

fn check(books: &[BookReport], measures: &Measures) -> Result<(), PositionLossError> {
    if books.iter().all(|book| book.tokens == 0) {
        return Err(PositionLossError::Choice("--books: there is no text in the books".into()));
    }
    if !measures.documents && books.iter().all(|book| book.windows == 0) {
        return Err(PositionLossError::Choice(format!(
            "--context {}: no book is that long; lower it",
            measures.windows.context
        )));
    }
    Ok(())
}

fn documents(rows: &[BookRow]) -> DocumentReport {
    let rows: Vec<&BookRow> = rows.iter().filter(|row| row.tokens > 0).collect();
    let nats: f64 = rows.iter().map(|row| row.tally.nats).sum();
    let tokens: u64 = rows.iter().map(|row| row.tally.predicted as u64).sum();
    let bytes: u64 = rows.iter().map(|row| row.bytes).sum();
    let words: u64 = rows.iter().map(|row| row.words).sum();
    let books: Vec<_> =
        rows.iter().map(|row| (vec![row.tally.nats], row.tally.predicted as f64)).collect();
    let errors = Bootstrap::new(books.len()).standard_errors(&books);
    let loss = Estimate { value: nats / tokens as f64, standard_error: errors.map(|e| e[0]) };
    DocumentReport {
        tokens,
        nats,
        loss,
        bits_per_byte: nats / std::f64::consts::LN_2 / bytes as f64,
        word_perplexity: (nats / words as f64).exp(),
    }
}

/// The first octave that starts at a thirty-second of the context, and the last.
fn early_and_late(
    octaves: &[Range<usize>],
    context: usize,
) -> Option<(Range<usize>, Range<usize>)> {
    let late = octaves.last()?;
    let early = octaves.iter().find(|octave| octave.start * 32 >= context)?;
    (early != late).then(|| (early.clone(), late.clone()))
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let context = report.windows.context;
    for CheckpointReport { about, beyond_trained_context, .. } in &report.checkpoints {
        let About { label, block_length, trained_context, .. } = about;
        if *beyond_trained_context {
            notes.push(format!(
                "{label} was trained with {trained_context} tokens of context; positions from \
                 {trained_context} on are beyond it."
            ));
        }
        if *block_length > 1 {
            notes.push(format!(
                "{label} predicts nothing for the first {block_length} positions of a window: its \
                 curve starts at position {block_length}."
            ));
        }
    }
    if report.checkpoints.len() > 1 {
        let from = report.common_from;
        notes.push(format!(
            "Comparisons are over positions {from} to {}, which every checkpoint predicts.",
            context - 1
        ));
    }
    let short: Vec<&str> = report
        .books
        .iter()
        .filter(|book| book.windows == 0)
        .map(|book| book.name.as_str())
        .collect();
    if !short.is_empty() {
        notes.push(format!(
            "{} of {} books are shorter than a window of {context} tokens and have no part in the \
             loss by position: {}.",
            short.len(),
            report.books.len(),
            short.join(", ")
        ));
    }
    notes
}
