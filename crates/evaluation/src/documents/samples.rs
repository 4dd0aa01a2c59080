//! Losses by position in many books, and statistics of these losses.

use std::ops::Range;

use serde::Serialize;

use crate::documents::bands::{bands, middle};
use crate::documents::measure::BookRow;
use crate::statistics::{Bootstrap, Estimate};

/// Points of a plotted curve per doubling of the position.
const PER_OCTAVE: usize = 4;

/// Loss by position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Number of windows that are averaged.
    pub windows: u64,
    /// Mean loss at each position of a window; `None` where nothing is predicted.
    pub positions: Vec<Option<Estimate>>,
}

/// The loss early in a window minus the loss late in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fall {
    /// Early positions.
    pub early: Range<usize>,
    /// Late positions.
    pub late: Range<usize>,
    /// The difference in nats.
    pub by: Estimate,
}

/// The losses of the books that have a window.
pub(crate) struct Samples {
    /// For each book: the loss at each position, summed over the book's windows, and the number of
    /// these windows.
    books: Vec<(Vec<f64>, f64)>,
    bootstrap: Bootstrap,
}

impl Samples {
    pub(super) fn of_windows(rows: &[BookRow], bootstrap: &Bootstrap) -> Self {
        let with_windows = rows.iter().filter(|row| row.tally.windows > 0);
        let book = |row: &BookRow| (row.tally.sums.clone(), row.tally.windows as f64);
        Self { books: with_windows.map(book).collect(), bootstrap: *bootstrap }
    }

    /// The losses minus the losses of the same books in `other`.
    pub(super) fn minus(&self, other: &Self) -> Self {
        let pairs = self.books.iter().zip(&other.books);
        let books = pairs.map(|((ours, windows), (theirs, _))| {
            (ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect(), *windows)
        });
        Self { books: books.collect(), bootstrap: self.bootstrap }
    }

    /// The sum of `statistic` over all books, divided by the number of windows of all books.
    /// `statistic` gets the summed losses of a book and must be linear. `None` without books.
    fn estimate(&self, statistic: impl Fn(&[f64]) -> f64) -> Option<Estimate> {
        let book = |(sums, windows): &(Vec<f64>, f64)| (vec![statistic(sums)], *windows);
        let books: Vec<_> = self.books.iter().map(book).collect();
        self.bootstrap.ratios(&books).first().copied()
    }

    /// Mean loss over `positions`.
    pub(super) fn mean(&self, positions: &Range<usize>) -> Option<Estimate> {
        match positions.is_empty() {
            true => None,
            false => self.estimate(|sums| mean(&sums[positions.clone()])),
        }
    }

    /// Mean loss over every `period`-th position of `positions`, starting at index `place`. `None`
    /// if `positions` is empty.
    pub(super) fn at_place(
        &self,
        positions: &Range<usize>,
        place: usize,
        period: usize,
    ) -> Option<Estimate> {
        if positions.is_empty() {
            return None;
        }
        self.estimate(|sums| {
            let places = sums[positions.clone()].iter().skip(place).step_by(period);
            mean(&places.copied().collect::<Vec<f64>>())
        })
    }

    /// Mean loss over the positions `early` minus the mean loss over the positions `late`.
    pub(super) fn early_minus_late(
        &self,
        early: &Range<usize>,
        late: &Range<usize>,
    ) -> Option<Estimate> {
        self.estimate(|sums| mean(&sums[early.clone()]) - mean(&sums[late.clone()]))
    }

    /// The loss at each position from `first` on.
    pub(super) fn curve(&self, first: usize) -> Curve {
        let windows: f64 = self.books.iter().map(|(_, windows)| windows).sum();
        let positions = self.bootstrap.ratios(&self.books).into_iter().enumerate();
        let positions = positions.map(|(i, estimate)| (i >= first).then_some(estimate));
        Curve { windows: windows as u64, positions: positions.collect() }
    }

    /// The mean loss in each band of positions from `first` to `context`, with the middle position
    /// of the band. Bands before `common` are whole blocks of this checkpoint; bands from `common`
    /// on are the same for all checkpoints and are whole blocks of each.
    pub(super) fn smoothed(
        &self,
        first: usize,
        common: usize,
        context: usize,
    ) -> Vec<(f64, Estimate)> {
        let before =
            if first < common { bands(first, common, PER_OCTAVE, first) } else { Vec::new() };
        let rest = bands(common, context, PER_OCTAVE, common);
        let point = |band: &Range<usize>| Some((middle(band), self.mean(band)?));
        before.iter().chain(&rest).filter_map(point).collect()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
