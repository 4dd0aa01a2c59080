//! The same work through HTTP and by an engine alone, in turn.

use block_transformer_zoo::LanguageModel;
use block_transformer_zoo::family::CacheFormat;
use burn::tensor::Device;
use serde::Serialize;

use super::run::{Load, LoadTest};
use crate::engine::AloneEngine;
use crate::error::BenchError;
use crate::format::{number, table};
use crate::report::Spread;

/// The speeds of one round, in new tokens per second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Side {
    /// Through HTTP.
    pub http: f64,
    /// By the engine alone.
    pub engine: f64,
}

/// A model through HTTP beside its engine alone. Both decode the same number of prompts of the same lengths at once.
#[derive(Clone, Debug, Serialize)]
pub struct Paired {
    /// The name of the model.
    pub model: String,
    /// Sequences decoded together.
    pub batch: usize,
    /// Tokens of prompt and continuation.
    pub work: String,
    /// The rounds.
    pub rounds: Vec<Side>,
}

impl Paired {
    /// Measures both sides in turn, `rounds` times; the side that comes first alternates. `model` is the model that
    /// the server of `test` serves, `vocab` the ids that it may choose. After each round, `progress` gets its number
    /// from 1 and its speeds.
    ///
    /// # Errors
    /// When the engine cannot be created or fails, or a request is not answered.
    pub fn measure(
        test: &LoadTest,
        (model, vocab): (&LanguageModel, usize),
        (cache, device): (CacheFormat, &Device),
        batch: usize,
        rounds: usize,
        progress: &mut dyn FnMut(usize, Side),
    ) -> Result<Self, BenchError> {
        let mut alone = AloneEngine::new(model, vocab, test.lengths, batch, cache, device)?;
        // no more requests than sequences, so that all start at once
        let test = LoadTest { requests: batch, ..test.clone() };
        let http = || {
            let traces = test.traces(Load::Streams(batch))?;
            if let Some(reason) = traces.failed.into_iter().next() {
                return Err(BenchError::Server { address: test.model.clone(), reason });
            }
            Ok((batch * test.lengths.new) as f64 / traces.seconds)
        };
        alone.rate()?; // warm-up
        let mut sides = Vec::new();
        for round in 1..=rounds {
            let side = if round % 2 == 1 {
                let engine = alone.rate()?;
                Side { http: http()?, engine }
            } else {
                let http = http()?;
                Side { http, engine: alone.rate()? }
            };
            progress(round, side);
            sides.push(side);
        }
        let work = test.lengths.to_string();
        Ok(Self { model: test.model, batch, work, rounds: sides })
    }

    /// The ratio of the speeds, HTTP over engine, by round.
    ///
    /// Returns `None` without rounds.
    pub fn ratio(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(|side| side.http / side.engine))
    }
}

/// Returns a table of comparisons.
pub fn paired_table(rows: &[Paired]) -> String {
    let head =
        ["model", "work", "batch", "HTTP tokens/s", "engine tokens/s", "ratio", "min", "max"];
    let cells = |row: &Paired| {
        let median = |of: fn(&Side) -> f64| {
            Spread::of(row.rounds.iter().map(of)).map_or(f64::NAN, |s| s.median)
        };
        let ratio = row.ratio();
        let ratio =
            |of: fn(Spread) -> f64| ratio.map_or_else(|| "-".into(), |s| format!("{:.3}", of(s)));
        vec![
            row.model.clone(),
            row.work.clone(),
            row.batch.to_string(),
            number(median(|side| side.http)),
            number(median(|side| side.engine)),
            ratio(|s| s.median),
            ratio(|s| s.min),
            ratio(|s| s.max),
        ]
    };
    table(&head, 2, rows.iter().map(cells)).trim_fmt()
}
