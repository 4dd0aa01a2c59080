//! The plan of a study: runs, tokens and hours.

use std::collections::BTreeMap;
use std::path::Path;

use block_transformer_bench::training_seconds;
use block_transformer_cost::{Machine, TrainingPrediction, TrainingStep, training_flops};
use block_transformer_training::TrainConfig;
use burn::tensor::Device;

use crate::declaration::{RATES, Study};
use crate::error::StudyError;
use crate::ledger::Ledger;
use crate::measurement::TRAIN;
use crate::points::View;
use crate::rates::Rates;
use crate::run::Run;

/// The machine of predictions.
pub(crate) const PREDICTED: &str = "h100";
/// FLOPs of a step above which a short measurement would take long.
const MEASURED_FLOPS: f64 = 1e12;
/// Steps of a measurement.
const STEPS: u64 = 4;

/// The speed of this machine in a plan.
pub enum Here<'a> {
    /// FLOP/s of training, stated.
    Stated(f64),
    /// A few steps of each shape are measured; the FLOP/s of the fastest count for shapes that would take long.
    Measured(&'a Device),
}

/// A run in a plan.
#[derive(Clone, Debug)]
pub struct PlannedRun {
    /// The run.
    pub run: Run,
    /// FLOPs of its training.
    pub flops: f64,
    /// Seconds on this machine.
    pub here: f64,
    /// Seconds on an H100, if the phases of a step run at its peaks and launches take their time.
    pub h100: f64,
    /// Whether its training is in the ledger.
    pub is_done: bool,
    /// Whether an earlier study of the plan has the same run.
    pub is_shared: bool,
}

/// The plan of a study.
#[derive(Clone, Debug)]
pub struct StudyPlan {
    /// The study.
    pub study: String,
    /// Its runs; those of the sweep first, if the learning rates follow from one.
    pub runs: Vec<PlannedRun>,
}

impl StudyPlan {
    /// The sum of a quantity over the runs that are not shared.
    pub fn sum(&self, of: impl Fn(&PlannedRun) -> f64) -> f64 {
        // the sum of nothing is -0.0
        self.runs.iter().filter(|planned| !planned.is_shared).map(of).sum::<f64>() + 0.0
    }
}

/// Seconds of a run's training on an H100.
pub(crate) fn predicted_seconds(config: &TrainConfig) -> Result<f64, StudyError> {
    let machine = Machine::open(Path::new(PREDICTED))?;
    let step = TrainingStep {
        batch: config.batch * config.accumulate,
        micro_batch: config.batch,
        context: config.context,
    };
    let prediction = TrainingPrediction::new(&config.model, &machine, step);
    let rate = prediction.rate_with_launches.unwrap_or(prediction.rate);
    Ok(config.steps as f64 * step.tokens() / rate)
}

/// Plans studies at a scale. A run that two studies share counts in the first of them.
///
/// # Errors
/// When a study is not valid, or the device fails.
pub fn plan(
    studies: &[Study],
    scale: &str,
    ledger: &Ledger,
    here: &Here<'_>,
) -> Result<Vec<StudyPlan>, StudyError> {
    let rates = Rates::of(ledger, scale)?;
    let mut speeds = Speeds { here, measured: BTreeMap::new(), peak: None };
    let mut seen: Vec<(String, bool)> = Vec::new();
    let mut plans = Vec::new();
    for study in studies {
        let mut runs = study.runs(scale, rates.as_ref())?;
        let mut view_of = vec![(study.clone(), runs.len())];
        if runs.iter().any(|run| run.is_open) && study.rates.is_none() {
            let sweep = Study::open(RATES)?;
            let swept = sweep.runs(scale, None)?;
            view_of.insert(0, (sweep, swept.len()));
            runs = swept.into_iter().chain(runs).collect();
        }
        let mut planned = Vec::new();
        let mut rest = runs.as_slice();
        for (study, count) in view_of {
            let (own, after) = rest.split_at(count);
            rest = after;
            let view = View::new(&study, scale, ledger, own);
            for run in own {
                let flops =
                    training_flops(&run.config.model, run.config.context) * run.tokens() as f64;
                // an open run has the learning rate of its preset, but only until the sweep is measured
                let key = (run.id.clone(), run.is_open);
                let is_shared = seen.contains(&key);
                seen.push(key);
                planned.push(PlannedRun {
                    run: run.clone(),
                    flops,
                    here: speeds.seconds(run, flops)?,
                    h100: predicted_seconds(&run.config)?,
                    is_done: view.row(run, TRAIN).is_some(),
                    is_shared,
                });
            }
        }
        plans.push(StudyPlan { study: study.name.clone(), runs: planned });
    }
    Ok(plans)
}

struct Speeds<'a> {
    here: &'a Here<'a>,
    /// Tokens per second and FLOP/s by shape.
    measured: BTreeMap<String, (f64, f64)>,
    /// FLOP/s of matrix products, where no shape is small enough to be measured.
    peak: Option<f64>,
}

impl Speeds<'_> {
    fn seconds(&mut self, run: &Run, flops: f64) -> Result<f64, StudyError> {
        let device = match self.here {
            Here::Stated(rate) => return Ok(flops / rate),
            Here::Measured(device) => *device,
        };
        let config = &run.config;
        let key = format!("{} {} {}", run.shape, config.batch, config.context);
        let tokens = (config.batch * config.context) as f64;
        let token_flops = flops / run.tokens() as f64;
        if let Some((rate, _)) = self.measured.get(&key) {
            return Ok(run.tokens() as f64 / rate);
        }
        if token_flops * tokens > MEASURED_FLOPS {
            let fastest = self.measured.values().map(|(_, flops)| *flops).fold(0.0, f64::max);
            if fastest > 0.0 {
                return Ok(flops / fastest);
            }
            let peak = self.peak.map_or_else(|| peak(device), Ok)?;
            self.peak = Some(peak);
            return Ok(flops / peak);
        }
        let seconds = training_seconds(&config.model, config, STEPS, device)?;
        let fastest = seconds.into_iter().fold(f64::INFINITY, f64::min);
        let rate = tokens / fastest;
        self.measured.insert(key, (rate, rate * token_flops));
        Ok(run.tokens() as f64 / rate)
    }
}

/// The peak of matrix products, which is an upper bound of the speed of training.
fn peak(device: &Device) -> Result<f64, StudyError> {
    let peaks =
        block_transformer_cost::Peaks::measure(block_transformer_device::DeviceName::Flex, device)?;
    Ok(peaks.flops)
}
