//! The measured time of a pass, by its number of positions.

use std::collections::BTreeMap;

/// The share of a new measurement in the average.
const SHARE: f64 = 0.2;
/// A measurement counts at most this many times the average, since another process may have interrupted it.
const MOST: f64 = 2.0;
/// Additional positions that are assumed to double the time of a pass, until they are measured. On most machines fewer
/// do, so that guesses are tried, and then measured.
const DOUBLING: f64 = 16.0;
/// Measurements after which one that was not repeated is forgotten, so that a wrong one does no lasting harm.
const FORGOTTEN: u64 = 1000;

/// Times of passes of one kind, in seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost {
    /// The average time and the number of the last measurement, by positions.
    times: BTreeMap<usize, (f64, u64)>,
    measured: u64,
}

impl Cost {
    /// Records that a pass over `positions` positions took `seconds`.
    pub(crate) fn record(&mut self, positions: usize, seconds: f64) {
        self.measured += 1;
        let now = self.measured;
        self.times.retain(|_, (_, last)| now - *last < FORGOTTEN);
        let (time, last) = self.times.entry(positions).or_insert((seconds, now));
        *time += SHARE * (seconds.min(MOST * *time) - *time);
        *last = now;
    }

    /// Predicts the time of a pass over `positions` positions; `None` before the first measurement.
    pub(crate) fn predict(&self, positions: usize) -> Option<f64> {
        let below = self.times.range(..=positions).next_back();
        let above = || self.times.range(positions..).next();
        Some(match below {
            Some((&known, &(time, _))) => time * (1.0 + (positions - known) as f64 / DOUBLING),
            None => above()?.1.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_replace_the_assumption_and_are_forgotten() {
        let mut cost = Cost::default();
        assert_eq!(cost.predict(1), None);
        cost.record(2, 1.0);
        assert_eq!(
            [1, 2, 10].map(|positions| cost.predict(positions)),
            [Some(1.0), Some(1.0), Some(1.5)]
        );
        cost.record(10, 4.0);
        assert_eq!(cost.predict(10), Some(4.0));
        // an outlier counts as twice the average
        cost.record(2, 100.0);
        assert!((cost.predict(2).unwrap() - 1.2).abs() < 1e-12);
        for _ in 0..FORGOTTEN {
            cost.record(2, 1.0);
        }
        assert!((cost.predict(10).unwrap() - 1.5).abs() < 1e-3);
    }
}
