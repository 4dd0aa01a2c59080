//! What the losses of books add up to.

use std::ops::Range;

use serde::Serialize;

use crate::bands::bands;
use crate::bootstrap::RESAMPLES;
use crate::documents::DocumentReport;
use crate::folder::BookRow;
use crate::notes::notes;
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
    /// What `fall` is above the baseline's.
    pub fall_difference: Option<Estimate>,
    /// Loss at each position.
    #[serde(skip)]
    pub curve: Curve,
    /// Loss in narrow bands, each at its middle position.
    #[serde(skip)]
    pub smoothed: Vec<(f64, Estimate)>,
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
        let above: Vec<Samples> =
            samples.iter().map(|sample| sample.less(&samples[baseline])).collect();
        let common = common_from..windows.context.max(common_from);
        let parts = bands(common_from, windows.context, 1, common_from);
        let fall = early_and_late(&parts, windows.context);
        let report = |i: usize| {
            let (about, sample): (&About, &Samples) = (&checkpoints[i], &samples[i]);
            let along =
                |sample: &Samples| fall.as_ref().and_then(|(early, late)| sample.fall(early, late));
            let other = (i != baseline).then(|| &above[i]);
            let places = if common_from > 1 { 0..common_from } else { 0..0 };
            CheckpointReport {
                about: about.clone(),
                beyond_trained_context: windows.context > about.trained_context,
                documents: measures.documents.then(|| DocumentReport::new(by_checkpoint[i])),
                common_loss: sample.mean(&common),
                difference: other.and_then(|above| above.mean(&common)),
                by_place: places.filter_map(|j| sample.place(&common, j, common_from)).collect(),
                fall: along(sample),
                fall_difference: other.and_then(along).map(|fall| fall.by),
                curve: sample.curve(about.block_length),
                smoothed: sample.smoothed(about.block_length, common_from, windows.context),
            }
        };
        let octave = |positions: Range<usize>| {
            let mean = |sample: &Samples| sample.mean(&positions);
            Octave {
                losses: samples.iter().filter_map(mean).collect(),
                differences: above.iter().filter_map(mean).collect(),
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::Tally;

    const CONTEXT: usize = 16;

    fn about(label: &str, block_length: usize, trained_context: usize) -> About {
        About {
            label: label.into(),
            folder: PathBuf::new(),
            weights: String::new(),
            family: if block_length > 1 { "block" } else { "vanilla" }.into(),
            block_length,
            parameters: 1,
            step: 1,
            trained_context,
        }
    }

    /// A book of `windows` windows with the loss `loss` at each position of each.
    fn row(about: &About, book: &str, windows: usize, loss: impl Fn(usize) -> f64) -> BookRow {
        let tokens = windows * CONTEXT + 5;
        let sum = |i| if i < about.block_length { 0.0 } else { loss(i) * windows as f64 };
        BookRow {
            checkpoint: about.label.clone(),
            book: book.into(),
            tokens,
            bytes: 4 * tokens as u64,
            words: tokens as u64 / 2,
            tally: Tally {
                windows,
                sums: (0..CONTEXT).map(sum).collect(),
                rolled: windows + 1,
                predicted: tokens,
                nats: 3.0 * tokens as f64,
            },
        }
    }

    fn measures(documents: bool) -> Measures {
        let windows = Windows { context: CONTEXT, stride: CONTEXT };
        Measures { windows, documents, batch: 1 }
    }

    fn near(estimate: Option<Estimate>, value: f64) {
        let found = estimate.unwrap().value;
        assert!((found - value).abs() < 1e-12, "{found}, {value}");
    }

    #[test]
    fn means_differences_and_falls_are_over_what_all_predict() {
        let (block, vanilla) = (about("b", 4, CONTEXT), about("v", 1, 8));
        // the block model is 0.5 worse, and a nat more at the first place of a block
        let of_vanilla = |i: usize| if i < 4 { 100.0 } else { 20.0 - i as f64 };
        let of_block = |i: usize| of_vanilla(i) + if i.is_multiple_of(4) { 1.5 } else { 0.5 };
        let rows = [
            row(&block, "long", 3, of_block),
            row(&block, "short", 0, of_block),
            row(&block, "other", 1, |i| of_block(i) + 4.0),
            row(&vanilla, "long", 3, of_vanilla),
            row(&vanilla, "short", 0, of_vanilla),
            row(&vanilla, "other", 1, |i| of_vanilla(i) + 4.0),
        ];
        let report = Report::new(&[block, vanilla], &measures(true), &rows).unwrap();
        assert_eq!((report.common_from, report.baseline.as_str()), (4, "v"));
        let [block, vanilla] = &report.checkpoints[..] else { unreachable!() };
        // positions 4 to 15 have a mean loss of 10.5, and a window in four has 4 more
        near(vanilla.common_loss, 11.5);
        near(block.common_loss, 12.25);
        near(block.difference, 0.75);
        // books differ, but the difference between the checkpoints is the same in each
        assert!(block.common_loss.unwrap().standard_error.unwrap() > 0.5);
        assert!(block.difference.unwrap().standard_error.unwrap() < 1e-12);
        assert_eq!(vanilla.difference, None);
        let places: Vec<f64> =
            block.by_place.iter().zip(&vanilla.by_place).map(|(b, v)| b.value - v.value).collect();
        assert_eq!(places, [1.5, 0.5, 0.5, 0.5]);
        let octaves: Vec<_> = report.octaves.iter().map(|o| o.positions.clone()).collect();
        assert_eq!(octaves, [4..8, 8..16]);
        near(report.octaves[1].losses.get(1).copied(), 9.5);
        near(report.octaves[1].differences.first().copied(), 0.75);
        let fall = vanilla.fall.as_ref().unwrap();
        assert_eq!((&fall.early, &fall.late), (&(4..8), &(8..16)));
        near(Some(fall.by), 6.0);
        near(block.fall_difference, 0.0);
        assert_eq!(vanilla.curve.windows, 4);
        assert_eq!(block.curve.positions.iter().filter(|p| p.is_none()).count(), 4);
        near(vanilla.curve.positions[1], 101.0);
        near(Some(vanilla.smoothed[0].1), 101.0);
        assert!(block.smoothed[0].0 > 4.0);
    }

    #[test]
    fn whole_books_give_bits_a_byte_and_perplexity_a_word() {
        let about = about("v", 1, CONTEXT);
        let rows = [row(&about, "a", 2, |_| 1.0)];
        let report = Report::new(&[about], &measures(true), &rows).unwrap();
        let document = report.checkpoints[0].documents.unwrap();
        // 37 tokens of 3 nats, 148 bytes, 18 words
        assert_eq!((document.tokens, document.nats), (37, 111.0));
        assert!((document.bits_per_byte - 111.0 / 148.0 / 2f64.ln()).abs() < 1e-12);
        assert!((document.word_perplexity - (111.0f64 / 18.0).exp()).abs() < 1e-9);
        // one book says nothing of how books differ
        assert_eq!(document.loss, Estimate { value: 3.0, standard_error: None });
    }

    #[test]
    fn what_a_reader_must_know_is_said() {
        let (block, vanilla) = (about("b", 4, CONTEXT), about("v", 1, 8));
        let books =
            |about: &About| [row(about, "long", 1, |_| 1.0), row(about, "tiny", 0, |_| 1.0)];
        let rows = [books(&block), books(&vanilla)].concat();
        let notes =
            Report::new(&[block, vanilla], &measures(true), &rows).unwrap().notes.join("\n");
        assert!(notes.contains("v was trained with 8 tokens of context"), "{notes}");
        assert!(!notes.contains("b was trained"), "{notes}");
        assert!(notes.contains("b predicts nothing for the first 4 positions"), "{notes}");
        assert!(notes.contains("positions 4 to 15"), "{notes}");
        assert!(notes.contains("1 of 2 books") && notes.contains("tiny"), "{notes}");
    }

    #[test]
    fn nothing_measured_is_an_error_that_names_the_flag() {
        let about = about("v", 1, CONTEXT);
        let short = [row(&about, "a", 0, |_| 1.0)];
        let error = |measures| {
            Report::new(std::slice::from_ref(&about), &measures, &short).unwrap_err().to_string()
        };
        assert!(error(measures(false)).contains("--context 16"));
        let report = Report::new(std::slice::from_ref(&about), &measures(true), &short).unwrap();
        assert!(report.octaves.is_empty() && report.checkpoints[0].common_loss.is_none());
    }
}
