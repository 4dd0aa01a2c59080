//! Results of an evaluation on documents.

use std::ops::Range;

use block_transformer_family::{BLOCK_FAMILY, Precision};
use num_integer::lcm;
use serde::Serialize;

use crate::documents::bands::bands;
use crate::documents::checkpoint::CheckpointInfo;
use crate::documents::measure::{BookRow, Measures};
use crate::documents::samples::{Curve, Fall, Samples};
use crate::documents::totals::DocumentTotals;
use crate::documents::windows::Windows;
use crate::error::EvalError;
use crate::statistics::{Bootstrap, Estimate};

/// The bootstrap over books.
const BOOTSTRAP: Bootstrap = Bootstrap { seed: 19, resamples: 1000 };

/// Loss by position and over whole books, for several checkpoints.
#[derive(Clone, Debug, Serialize)]
pub struct PositionReport {
    /// The formats of weights and caches; f32 unless it is set.
    #[serde(skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// The windows.
    pub windows: Windows,
    /// Number of bootstrap samples for the standard errors.
    pub resamples: usize,
    /// The first position that every checkpoint predicts and at which every checkpoint starts a
    /// block.
    pub common_from: usize,
    /// The books.
    pub books: Vec<BookReport>,
    /// The checkpoints, in the order given.
    pub checkpoints: Vec<CheckpointReport>,
    /// Label of the checkpoint that the others are compared with: the first checkpoint without
    /// blocks, or the first checkpoint if all have blocks.
    pub baseline: String,
    /// Loss by octave of positions, from `common_from` on.
    pub octaves: Vec<Octave>,
}

/// Sizes of a book.
#[derive(Clone, Debug, Serialize)]
pub struct BookReport {
    /// The book's name.
    pub name: String,
    /// Tokens of the book.
    pub tokens: usize,
    /// Bytes of the book's text in UTF-8.
    pub bytes: u64,
    /// Words of the book's text.
    pub words: u64,
    /// Windows in the book; a book with 0 windows does not contribute to the curve.
    pub windows: usize,
    /// Tokens in no window.
    pub unused_tokens: usize,
}

/// Losses of a checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointReport {
    /// The checkpoint.
    #[serde(flatten)]
    pub info: CheckpointInfo,
    /// Whether windows are longer than the context that the checkpoint was trained with.
    pub beyond_trained_context: bool,
    /// Loss over whole books; `None` where it was not measured.
    pub documents: Option<DocumentTotals>,
    /// Mean loss of a window's tokens from `common_from` on, in nats per token.
    pub common_loss: Option<Estimate>,
    /// `common_loss` minus the `common_loss` of the baseline.
    pub difference: Option<Estimate>,
    /// Mean loss at each place in a block, from `common_from` on.
    pub by_place: Vec<Estimate>,
    /// Decrease of the loss along the window.
    pub fall: Option<Fall>,
    /// `fall` minus the `fall` of the baseline.
    pub fall_difference: Option<Estimate>,
    /// Loss at each position.
    #[serde(skip)]
    pub curve: Curve,
    /// Loss in narrow bands of positions, with the middle position of each band.
    #[serde(skip)]
    pub smoothed: Vec<(f64, Estimate)>,
}

/// Losses over the positions from `p` to `2 p`.
#[derive(Clone, Debug, Serialize)]
pub struct Octave {
    /// The positions.
    pub positions: Range<usize>,
    /// Mean loss of each checkpoint.
    pub losses: Vec<Estimate>,
    /// Mean loss of each checkpoint minus the mean loss of the baseline.
    pub differences: Vec<Estimate>,
}

/// The positions over which all checkpoints are compared.
struct Axis {
    context: usize,
    common_from: usize,
    octaves: Vec<Range<usize>>,
}

impl PositionReport {
    /// Summarizes `rows`, which contains the rows of each of `checkpoints`: the same books in the
    /// same order.
    ///
    /// # Errors
    /// When nothing was measured: no book has a token, or only windows were measured and no book
    /// has a window.
    pub fn new(
        checkpoints: &[CheckpointInfo],
        measures: &Measures,
        rows: &[Vec<BookRow>],
    ) -> Result<Self, EvalError> {
        let first = rows.first().ok_or(EvalError::NoCheckpoints)?;
        let windows = measures.windows;
        let books: Vec<BookReport> = first.iter().map(|row| book(row, &windows)).collect();
        let has_windows = books.iter().any(|book| book.windows > 0);
        if books.iter().all(|book| book.tokens == 0) {
            return Err(EvalError::NoText);
        }
        if !measures.documents && !has_windows {
            return Err(EvalError::NoWindows(windows.context));
        }
        let axis = Axis::new(checkpoints, windows.context);
        let baseline = checkpoints.iter().position(|info| info.family != BLOCK_FAMILY).unwrap_or(0);
        let samples: Vec<Samples> =
            rows.iter().map(|rows| Samples::of_windows(rows, &BOOTSTRAP)).collect();
        let differences: Vec<Samples> =
            samples.iter().map(|sample| sample.minus(&samples[baseline])).collect();
        let checkpoint = |(i, info): (usize, &CheckpointInfo)| CheckpointReport {
            documents: measures
                .documents
                .then(|| DocumentTotals::new(&rows[i], &BOOTSTRAP))
                .flatten(),
            ..axis.checkpoint(info, &samples[i], (i != baseline).then(|| &differences[i]))
        };
        Ok(Self {
            precision: Precision::F32,
            windows,
            resamples: BOOTSTRAP.resamples,
            common_from: axis.common_from,
            checkpoints: checkpoints.iter().enumerate().map(checkpoint).collect(),
            baseline: checkpoints[baseline].label.clone(),
            octaves: match has_windows {
                true => axis.octaves.iter().map(|o| octave(o, &samples, &differences)).collect(),
                false => Vec::new(),
            },
            books,
        })
    }
}

impl Axis {
    fn new(checkpoints: &[CheckpointInfo], context: usize) -> Self {
        let common_from = checkpoints.iter().map(|info| info.block_length).fold(1, lcm);
        Self { context, common_from, octaves: bands(common_from, context, 1, common_from) }
    }

    /// The losses of a checkpoint by position. `difference` holds the losses minus the losses of
    /// the baseline.
    fn checkpoint(
        &self,
        info: &CheckpointInfo,
        sample: &Samples,
        difference: Option<&Samples>,
    ) -> CheckpointReport {
        let Self { context, common_from, .. } = *self;
        let common = common_from..context.max(common_from);
        let places = if common_from > 1 { 0..common_from } else { 0..0 };
        let ends = self.early_and_late();
        let fall = |sample: &Samples| {
            let (early, late) = ends.clone()?;
            let by = sample.early_minus_late(&early, &late)?;
            Some(Fall { early, late, by })
        };
        CheckpointReport {
            info: info.clone(),
            beyond_trained_context: context > info.trained_context,
            documents: None,
            common_loss: sample.mean(&common),
            difference: difference.and_then(|sample| sample.mean(&common)),
            by_place: places.filter_map(|j| sample.at_place(&common, j, common_from)).collect(),
            fall: fall(sample),
            fall_difference: difference.and_then(fall).map(|fall| fall.by),
            curve: sample.curve(info.block_length),
            smoothed: sample.smoothed(info.block_length, common_from, context),
        }
    }

    /// Two octaves: the first that starts at a thirty-second of the context or later, and the last.
    /// `None` if there are no two different octaves.
    fn early_and_late(&self) -> Option<(Range<usize>, Range<usize>)> {
        let late = self.octaves.last()?;
        let early = self.octaves.iter().find(|octave| octave.start * 32 >= self.context)?;
        (early != late).then(|| (early.clone(), late.clone()))
    }
}

fn octave(positions: &Range<usize>, samples: &[Samples], differences: &[Samples]) -> Octave {
    let means =
        |samples: &[Samples]| samples.iter().filter_map(|sample| sample.mean(positions)).collect();
    Octave { positions: positions.clone(), losses: means(samples), differences: means(differences) }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::documents::measure::Tally;
    use crate::documents::notes::notes;

    const CONTEXT: usize = 16;

    fn info(label: &str, block_length: usize, trained_context: usize) -> CheckpointInfo {
        CheckpointInfo {
            label: label.into(),
            folder: PathBuf::new(),
            weights: String::new(),
            family: if block_length > 1 { BLOCK_FAMILY } else { "vanilla" }.into(),
            block_length,
            parameters: 1,
            step: 1,
            trained_context,
        }
    }

    /// A book of `windows` windows with the loss `loss` at each position of each, from `first` on.
    fn row(first: usize, book: &str, windows: usize, loss: impl Fn(usize) -> f64) -> BookRow {
        let tokens = windows * CONTEXT + 5;
        let sum = |i| if i < first { 0.0 } else { loss(i) * windows as f64 };
        BookRow {
            checkpoint: String::new(),
            book: book.into(),
            tokens,
            bytes: 4 * tokens as u64,
            words: tokens as u64 / 2,
            tally: Tally {
                windows,
                sums: (0..CONTEXT).map(sum).collect(),
                rolling_windows: windows + 1,
                predicted: tokens,
                total_nats: 3.0 * tokens as f64,
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
    fn means_differences_and_falls_are_over_the_positions_that_all_predict() {
        let (block, vanilla) = (info("b", 4, CONTEXT), info("v", 1, 8));
        // the loss of the block model is 0.5 nats higher, and one nat more at the first place of a
        // block
        let of_vanilla = |i: usize| if i < 4 { 100.0 } else { 20.0 - i as f64 };
        let of_block = |i: usize| of_vanilla(i) + if i.is_multiple_of(4) { 1.5 } else { 0.5 };
        let rows = |first, loss: &dyn Fn(usize) -> f64| {
            let other = row(first, "other", 1, |i| loss(i) + 4.0);
            vec![row(first, "long", 3, loss), row(first, "short", 0, loss), other]
        };
        let rows = [rows(4, &of_block), rows(1, &of_vanilla)];
        let report = PositionReport::new(&[block, vanilla], &measures(true), &rows).unwrap();
        let notes = notes(&report).join("\n");
        for part in [
            "v was trained with 8 tokens of context",
            "b predicts nothing for the first 4 positions",
            "positions 4 to 15",
            "1 of 3 books",
            "short.",
        ] {
            assert!(notes.contains(part) && !notes.contains("b was trained"), "{notes}");
        }
        assert_eq!((report.common_from, report.baseline.as_str()), (4, "v"));
        let [block, vanilla] = &report.checkpoints[..] else { unreachable!() };
        // the mean loss of positions 4 to 15 is 10.5; in one window of four it is 4 higher
        near(vanilla.common_loss, 11.5);
        near(block.common_loss, 12.25);
        near(block.difference, 0.75);
        // the loss differs between books, but the difference between the checkpoints does not
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
        let unpredicted = block.curve.positions.iter().filter(|p| p.is_none()).count();
        assert_eq!((vanilla.curve.windows, unpredicted), (4, 4));
        near(vanilla.curve.positions[1], 101.0);
        near(Some(vanilla.smoothed[0].1), 101.0);
        assert!(block.smoothed[0].0 > 4.0);
    }

    #[test]
    fn whole_books_give_bits_per_byte_and_perplexity_per_word() {
        let info = info("v", 1, CONTEXT);
        let rows = [vec![row(1, "a", 2, |_| 1.0)]];
        let report = PositionReport::new(&[info], &measures(true), &rows).unwrap();
        let document = report.checkpoints[0].documents.unwrap();
        // 37 tokens of 3 nats, 148 bytes, 18 words
        assert_eq!((document.tokens, document.total_nats), (37, 111.0));
        assert!((document.bits_per_byte - 111.0 / 148.0 / 2f64.ln()).abs() < 1e-12);
        assert!((document.word_perplexity - (111.0f64 / 18.0).exp()).abs() < 1e-9);
        // one book gives no estimate of how books differ
        assert_eq!(document.loss, Estimate { value: 3.0, standard_error: None });
    }

    #[test]
    fn a_block_transformer_of_block_length_1_is_not_the_baseline() {
        let of_blocks = |label, length| CheckpointInfo {
            family: BLOCK_FAMILY.into(),
            ..info(label, length, CONTEXT)
        };
        let baseline = |checkpoints: &[CheckpointInfo]| {
            let rows = vec![vec![row(4, "a", 2, |_| 1.0)]; checkpoints.len()];
            PositionReport::new(checkpoints, &measures(false), &rows).unwrap().baseline
        };
        let (one, four) = (of_blocks("one", 1), of_blocks("four", 4));
        assert_eq!(baseline(&[one.clone(), four.clone(), info("v", 1, CONTEXT)]), "v");
        assert_eq!(baseline(&[four, one]), "four");
    }

    #[test]
    fn an_evaluation_that_measured_nothing_is_an_error() {
        let info = info("v", 1, CONTEXT);
        let short = [vec![row(1, "a", 0, |_| 1.0)]];
        let new = |measures| PositionReport::new(std::slice::from_ref(&info), &measures, &short);
        assert!(matches!(new(measures(false)), Err(EvalError::NoWindows(CONTEXT))));
        let report = new(measures(true)).unwrap();
        assert!(report.octaves.is_empty() && report.checkpoints[0].common_loss.is_none());
    }
}
