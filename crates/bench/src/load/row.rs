//! The measurements of a model under a load.

use std::fmt;

use serde::Serialize;

use super::client::ServedCard;
use super::run::{Load, LoadTest, Trace, Traces};
use crate::error::BenchError;

/// Percentiles of times, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The time that a tenth exceeds.
    pub p90: f64,
    /// The time that a hundredth exceeds.
    pub p99: f64,
}

impl Percentiles {
    /// Returns the percentiles of `values`, between two of them by interpolation; `None` without values.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (low, part) = (place as usize, place.fract());
            values[low] + part * (values[(low + 1).min(last)] - values[low])
        };
        Some(Self { p50: at(0.5), p90: at(0.9), p99: at(0.99) })
    }
}

/// The longest times with which a request is served well, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounds {
    /// The time to the first token.
    pub ttft: f64,
    /// The mean time between tokens of the request.
    pub itl: f64,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ttft, itl) = (1000.0 * self.ttft, 1000.0 * self.itl);
        write!(f, "a first token within {ttft} ms and on average {itl} ms between tokens")
    }
}

/// The measurements of a model under a load. Times are in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct LoadRow {
    /// The name of the model.
    pub model: String,
    /// The family of the model, if the server says it.
    pub family: Option<String>,
    /// How requests arrived.
    pub load: Load,
    /// Tokens of prompt and continuation.
    pub work: String,
    /// Requests that were answered.
    pub answered: usize,
    /// Requests that were not answered, and the first of their errors.
    pub failed: usize,
    /// The error of the first request that failed.
    pub error: Option<String>,
    /// Seconds from the start to the last answer, of all rounds.
    pub seconds: f64,
    /// Answers per second.
    pub requests_per_second: f64,
    /// New tokens per second.
    pub tokens_per_second: f64,
    /// Time to the first token.
    pub ttft: Percentiles,
    /// Time between two events of a stream, divided by the tokens of the later one; once for each token.
    pub itl: Percentiles,
    /// Time of the whole answer.
    pub e2e: Percentiles,
    /// Answers per second that keep the bounds, if there are bounds.
    pub goodput: Option<f64>,
}

/// The measurements of several rounds.
#[derive(Debug, Default)]
pub(super) struct Rounds(Vec<Traces>);

impl Rounds {
    /// Adds a round.
    pub(super) fn push(&mut self, traces: Traces) {
        self.0.push(traces);
    }

    /// Adds other rounds.
    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Returns the row of all rounds.
    ///
    /// # Errors
    /// When no request was answered.
    pub(super) fn row(
        &self,
        test: &LoadTest,
        card: &ServedCard,
        load: Load,
        bounds: Option<Bounds>,
    ) -> Result<LoadRow, BenchError> {
        let answered: Vec<&Trace> = self.0.iter().flat_map(|round| &round.answered).collect();
        let failed: Vec<&String> = self.0.iter().flat_map(|round| &round.failed).collect();
        let seconds: f64 = self.0.iter().map(|round| round.seconds).sum();
        let none = || BenchError::Server {
            address: format!("{}, {load}", test.model),
            reason: failed
                .first()
                .map_or("no request was sent in this time".into(), |e| (*e).clone()),
        };
        let firsts = answered.iter().map(|trace| trace.first()).collect();
        let gaps: Vec<f64> = answered.iter().flat_map(|trace| trace.gaps()).collect();
        let ends = answered.iter().map(|trace| trace.end).collect();
        let tokens: usize = answered.iter().map(|trace| trace.tokens()).sum();
        let good = bounds.map(|bounds| answered.iter().filter(|trace| trace.keeps(bounds)).count());
        let ttft = Percentiles::of(firsts).ok_or_else(none)?;
        // a continuation of one event has no time between events
        let nothing = Percentiles { p50: 0.0, p90: 0.0, p99: 0.0 };
        Ok(LoadRow {
            model: card.id.clone(),
            family: card.family.clone(),
            load,
            work: test.lengths.to_string(),
            answered: answered.len(),
            failed: failed.len(),
            error: failed.first().map(|error| (*error).clone()),
            seconds,
            requests_per_second: answered.len() as f64 / seconds,
            tokens_per_second: tokens as f64 / seconds,
            ttft,
            itl: Percentiles::of(gaps).unwrap_or(nothing),
            e2e: Percentiles::of(ends).ok_or_else(none)?,
            goodput: good.map(|good| good as f64 / seconds),
        })
    }
}

impl Trace {
    fn first(&self) -> f64 {
        self.events.first().map_or(self.end, |&(time, _)| time)
    }

    fn tokens(&self) -> usize {
        self.events.last().map_or(0, |&(_, tokens)| tokens)
    }

    /// The times between tokens, except before those of the first event.
    fn gaps(&self) -> impl Iterator<Item = f64> {
        self.events.windows(2).flat_map(|pair| {
            let ((before, had), (time, has)) = (pair[0], pair[1]);
            let tokens = has - had;
            std::iter::repeat_n((time - before) / tokens as f64, tokens)
        })
    }

    fn keeps(&self, bounds: Bounds) -> bool {
        let gaps: Vec<f64> = self.gaps().collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
        self.first() <= bounds.ttft && mean <= bounds.itl
    }
}

#[cfg(test)]
mod tests {
    use block_transformer_cost::Lengths;

    use super::*;
    use crate::load::client::Endpoint;

    #[test]
    fn percentiles_are_interpolated() {
        let values = (0..=100).rev().map(f64::from).collect();
        let found = Percentiles::of(values).unwrap();
        assert_eq!((found.p50, found.p90, found.p99), (50.0, 90.0, 99.0));
        let two = Percentiles::of(vec![3.0, 1.0]).unwrap();
        assert!((two.p50 - 2.0).abs() < 1e-12 && (two.p99 - 2.98).abs() < 1e-12);
        assert_eq!(Percentiles::of(Vec::new()), None);
    }

    #[test]
    fn a_row_counts_tokens_gaps_and_the_answers_within_the_bounds() {
        // 1 token after 0.5 s, then 4 tokens after 0.4 s more
        let quick = Trace { events: vec![(0.5, 1), (0.9, 5)], end: 0.9 };
        let slow = Trace { events: vec![(2.0, 1), (6.0, 5)], end: 6.5 };
        let mut rounds = Rounds::default();
        rounds.push(Traces { answered: vec![quick], failed: vec!["full".into()], seconds: 2.0 });
        rounds.push(Traces { answered: vec![slow], failed: vec![], seconds: 8.0 });
        let test = LoadTest {
            endpoint: Endpoint::new("http://127.0.0.1:1", None).unwrap(),
            model: "a".into(),
            vocab_size: 10,
            lengths: Lengths { prompt: 1, new: 5 },
            seconds: 1.0,
            requests: 1,
            seed: 0,
        };
        let card = ServedCard { id: "a".into(), family: None };
        let bounds = Bounds { ttft: 1.0, itl: 0.11 };
        let row = rounds.row(&test, &card, Load::Streams(1), Some(bounds)).unwrap();
        assert_eq!((row.answered, row.failed, row.error.as_deref()), (2, 1, Some("full")));
        assert!((row.tokens_per_second - 1.0).abs() < 1e-12);
        assert!((row.ttft.p50 - 1.25).abs() < 1e-12 && (row.e2e.p50 - 3.7).abs() < 1e-12);
        assert!((row.itl.p50 - 0.55).abs() < 1e-12 && (row.itl.p99 - 1.0).abs() < 1e-12);
        assert!((row.goodput.unwrap() - 0.1).abs() < 1e-12);
        let strict = Bounds { ttft: 1.0, itl: 0.09 };
        let row = rounds.row(&test, &card, Load::Streams(1), Some(strict)).unwrap();
        assert!(row.goodput.unwrap().abs() < 1e-12);
        let error = Rounds::default().row(&test, &card, Load::Rate(0.5), None).unwrap_err();
        assert!(error.to_string().contains("0.5/s"), "{error}");
    }
}
