//! Speeds, which depend on the shape of a model and not on its weights.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use block_transformer_bench::{
    Batches, BenchRow, Candidate, DecodeBench, Spread, training_seconds,
};
use block_transformer_cost::{Lengths, Machine, Plan, Workload};
use block_transformer_zoo::Precision;
use serde_json::{Value, json};

use crate::error::StudyError;
use crate::execute::Laboratory;
use crate::ledger::Row;
use crate::measurement::{DecodeKeys, Measurement, SpeedKeys};
use crate::plan::{PREDICTED, predicted_seconds};
use crate::run::Run;

/// Measures the shapes of runs in turn.
pub(crate) fn of_shapes(
    laboratory: &Laboratory,
    runs: &[&Run],
    measurement: &Measurement,
) -> Result<Vec<Row>, StudyError> {
    let begun = Instant::now();
    let values = match measurement {
        Measurement::Decode(keys) => decode(laboratory, runs, keys)?,
        Measurement::Speed(keys) => speed(laboratory, runs, keys)?,
        _ => Vec::new(),
    };
    // the models are measured in turn, so each has its part of the time
    let seconds = laboratory.settings.clock.seconds(begun, 0.0) / runs.len() as f64;
    let row = |(run, values): (&&Run, Value)| Row {
        settings: measurement.settings(run),
        seconds,
        ..laboratory.row(&run.shape, measurement.name(), values)
    };
    Ok(runs.iter().zip(values).map(row).collect())
}

/// Tokens per second of decoding, by workload.
fn decode(
    laboratory: &Laboratory,
    runs: &[&Run],
    keys: &DecodeKeys,
) -> Result<Vec<Value>, StudyError> {
    // checked when the settings were parsed
    let lengths = keys.lengths().unwrap_or_default();
    if !laboratory.settings.clock.is_real() {
        return runs.iter().map(|run| predicted(run, &lengths, keys.memory)).collect();
    }
    let bench = DecodeBench {
        candidates: runs
            .iter()
            .map(|run| Candidate::shape(&run.shape, run.config.model.clone()))
            .collect(),
        workloads: lengths.iter().map(|(_, lengths)| Workload::Lengths(*lengths)).collect(),
        batches: Batches::Memory(keys.memory),
        seconds: Some(keys.seconds),
        rounds: keys.rounds,
        precision: Precision::default(),
        graphs: true,
        device: laboratory.settings.device,
    };
    let report = bench.run(&laboratory.device, &mut |_, _, _| ())?;
    let of_run = |run: &&Run| {
        let named = lengths.iter().filter_map(|(name, lengths)| {
            let is_own =
                |row: &&BenchRow| row.model == run.shape && row.work == lengths.to_string();
            let row = report.rows.iter().find(is_own)?;
            let Spread { median, min, max } = row.rate;
            let values = json!({
                "rate": median, "min": min, "max": max, "batch": row.batch,
                "sequence_bytes": row.sequence_bytes, "of_predicted": row.predicted_share.median,
            });
            Some((name.to_string(), values))
        });
        json!(named.collect::<BTreeMap<String, Value>>())
    };
    Ok(runs.iter().map(of_run).collect())
}

/// The predicted speed of decoding.
fn predicted(run: &Run, lengths: &[(&str, Lengths)], memory: u64) -> Result<Value, StudyError> {
    let machine = Machine::open(Path::new(PREDICTED))?;
    let machine = Machine { memory: memory as f64, ..machine };
    let mut values = BTreeMap::new();
    for (name, lengths) in lengths {
        let workload = Workload::Lengths(*lengths);
        let plan = Plan::new(&run.config.model, &machine, workload, None);
        let plan = plan.map_err(|source| {
            let model = run.shape.clone();
            block_transformer_bench::BenchError::NoBatch { model, workload, source }
        })?;
        let rate = plan.prediction.rate;
        values.insert(
            name.to_string(),
            json!({ "rate": rate, "min": rate, "max": rate, "batch": plan.batch }),
        );
    }
    Ok(json!(values))
}

/// Tokens per second of training steps.
fn speed(
    laboratory: &Laboratory,
    runs: &[&Run],
    keys: &SpeedKeys,
) -> Result<Vec<Value>, StudyError> {
    let measure = |run: &&Run| {
        let config = &run.config;
        let tokens = (config.batch * config.context) as f64;
        if !laboratory.settings.clock.is_real() {
            let rate = run.tokens() as f64 / predicted_seconds(config)?;
            return Ok(json!({ "tokens_per_second": rate, "min": rate, "max": rate }));
        }
        let seconds = training_seconds(&config.model, config, keys.steps, &laboratory.device)?;
        let rates = seconds.iter().map(|seconds| tokens / seconds);
        let Spread { median, min, max } =
            Spread::of(rates).unwrap_or(Spread { median: 0.0, min: 0.0, max: 0.0 });
        Ok(json!({ "tokens_per_second": median, "min": min, "max": max }))
    };
    runs.iter().map(measure).collect()
}
