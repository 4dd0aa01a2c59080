//! Losses by position of many books, and what can be said of them.

use std::ops::Range;

use crate::bands::{bands, middle};
use crate::bootstrap::Bootstrap;
use crate::folder::BookRow;
use crate::report::{Curve, Estimate, Fall};

/// Points of a drawn curve to a doubling of the position.
const PER_OCTAVE: usize = 4;

/// The losses of the books that have a window.
pub(crate) struct Samples {
    /// Loss at each position summed over a book's windows, and their number.
    books: Vec<(Vec<f64>, f64)>,
    bootstrap: Bootstrap,
}

impl Samples {
    pub fn of_windows(rows: &[BookRow]) -> Self {
        let books: Vec<_> = rows
            .iter()
            .filter(|row| row.tally.windows > 0)
            .map(|row| (row.tally.sums.clone(), row.tally.windows as f64))
            .collect();
        let bootstrap = Bootstrap::new(books.len());
        Self { books, bootstrap }
    }

    fn windows(&self) -> f64 {
        self.books.iter().map(|(_, windows)| windows).sum()
    }

    /// What these losses are above those of the same books in `other`.
    pub fn less(&self, other: &Self) -> Self {
        let pairs = self.books.iter().zip(&other.books);
        let books = pairs.map(|((ours, windows), (theirs, _))| {
            (ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect(), *windows)
        });
        Self { books: books.collect(), bootstrap: self.bootstrap.clone() }
    }

    /// The mean over windows of `what` is summed of a book's losses by position.
    fn estimate(&self, what: impl Fn(&[f64]) -> f64) -> Option<Estimate> {
        let books: Vec<_> =
            self.books.iter().map(|(sums, windows)| (vec![what(sums)], *windows)).collect();
        if books.is_empty() {
            return None;
        }
        let value = books.iter().map(|(sum, _)| sum[0]).sum::<f64>() / self.windows();
        let errors = self.bootstrap.standard_errors(&books);
        Some(Estimate { value, standard_error: errors.map(|errors| errors[0]) })
    }

    pub fn mean(&self, positions: &Range<usize>) -> Option<Estimate> {
        if positions.is_empty() {
            return None;
        }
        self.estimate(|sums| mean(&sums[positions.clone()]))
    }

    /// The mean over the positions that are `place` past a multiple of `of`.
    pub fn place(&self, positions: &Range<usize>, place: usize, of: usize) -> Option<Estimate> {
        if positions.is_empty() {
            return None;
        }
        self.estimate(|sums| {
            let places = sums[positions.clone()].iter().skip(place).step_by(of);
            mean(&places.copied().collect::<Vec<f64>>())
        })
    }

    pub fn fall(&self, early: &Range<usize>, late: &Range<usize>) -> Option<Fall> {
        let by = self.estimate(|sums| mean(&sums[early.clone()]) - mean(&sums[late.clone()]))?;
        Some(Fall { early: early.clone(), late: late.clone(), by })
    }

    pub fn curve(&self, first: usize) -> Curve {
        if self.books.is_empty() {
            return Curve::default();
        }
        let windows = self.windows();
        let errors = self.bootstrap.standard_errors(&self.books);
        let at = |i: usize| Estimate {
            value: self.books.iter().map(|(sums, _)| sums[i]).sum::<f64>() / windows,
            standard_error: errors.as_ref().map(|errors| errors[i]),
        };
        let positions = (0..self.books[0].0.len()).map(|i| (i >= first).then(|| at(i)));
        Curve { windows: windows as u64, positions: positions.collect() }
    }

    /// The curve in bands, from its own first position on, block by block from `common` on.
    pub fn smoothed(&self, first: usize, common: usize, context: usize) -> Vec<(f64, Estimate)> {
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
