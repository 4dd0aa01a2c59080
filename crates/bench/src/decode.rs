//! The benchmark of decoding.

use block_transformer_cost::{Peaks, Prediction, Workload};
use block_transformer_device::{DeviceName, machine_memory};
use block_transformer_generation::{Limits, Storage};
use block_transformer_zoo::{FamilyConfig, Precision};
use burn::tensor::Device;

use crate::candidate::Candidate;
use crate::engine::{Measurement, Setup, room};
use crate::error::BenchError;
use crate::report::{BenchReport, BenchRow, Spread, instruction_set_of};

/// The numbers of sequences that are decoded together.
#[derive(Clone, Debug)]
pub enum Batches {
    /// Each of these batch sizes, in turn.
    Sizes(Vec<usize>),
    /// The largest batch that fits into this many bytes together with the model.
    Memory(u64),
}

/// A benchmark of decoding: several models at several workloads, in turn, in several rounds.
#[derive(Clone, Debug)]
pub struct DecodeBench {
    /// The models.
    pub candidates: Vec<Candidate>,
    /// The workloads. In one measurement, all sequences have the same workload.
    pub workloads: Vec<Workload>,
    /// The batch sizes.
    pub batches: Batches,
    /// Time limit in seconds for the prompts of a measurement, and the same limit for its decoding.
    /// The time of the remaining prompts and tokens is extrapolated. `None` measures every token.
    pub seconds: Option<f64>,
    /// Number of times that everything is measured.
    pub rounds: usize,
    /// How weights are stored.
    pub precision: Precision,
    /// Whether blocks are captured as graphs on devices that replay them.
    pub graphs: bool,
    /// The device.
    pub device: DeviceName,
}

/// A model at one workload, measured once per round.
struct Contest<'a> {
    setup: Setup<'a>,
    rounds: Vec<(Measurement, Prediction)>,
}

impl DecodeBench {
    /// Measures everything on `device`, which must be the device that [`Self::device`] names. After
    /// each measurement, `progress` gets the round (counted from 1), the row of this measurement
    /// alone, and the peaks: the higher of the values before and after the measurement.
    ///
    /// # Errors
    /// Before the first measurement, when a continuation is too short or a batch does not fit into
    /// memory. During the measurements, when a checkpoint cannot be loaded or the device fails.
    pub fn run(
        &self,
        device: &Device,
        progress: &mut dyn FnMut(usize, &BenchRow, Peaks),
    ) -> Result<BenchReport, BenchError> {
        let mut contests = self.contests(device)?;
        let mut all_peaks = Vec::new();
        for round in 1..=self.rounds {
            for contest in &mut contests {
                let before = Peaks::measure(self.device, device)?;
                let measurement = contest.setup.measure()?;
                let peaks = before.max(Peaks::measure(self.device, device)?);
                let prediction = contest.setup.predict(&peaks.machine(self.precision));
                contest.rounds.push((measurement, prediction));
                if let Some(row) = contest.row(round - 1) {
                    progress(round, &row, peaks);
                }
                all_peaks.push(peaks);
            }
        }
        Ok(BenchReport {
            title: "Decoding".into(),
            device: self.device,
            instruction_set: instruction_set_of(self.device),
            precision: self.precision,
            peaks: all_peaks,
            rows: contests.iter().filter_map(|contest| contest.row(0)).collect(),
        })
    }

    /// Returns every combination of workload, batch size and model, in the order of measurement.
    fn contests<'a>(&'a self, device: &'a Device) -> Result<Vec<Contest<'a>>, BenchError> {
        let sizes: Vec<Option<usize>> = match &self.batches {
            Batches::Sizes(sizes) => sizes.iter().copied().map(Some).collect(),
            Batches::Memory(_) => vec![None],
        };
        let mut contests = Vec::new();
        for &workload in &self.workloads {
            for &size in &sizes {
                for candidate in &self.candidates {
                    let batch = match size {
                        Some(size) => size,
                        None => self.largest_batch(candidate, workload, device)?,
                    };
                    let setup = Setup {
                        candidate,
                        workload,
                        batch,
                        seconds: self.seconds,
                        precision: self.precision,
                        graphs: self.graphs,
                        device,
                    };
                    setup.check()?;
                    self.check_memory(&setup)?;
                    contests.push(Contest { setup, rounds: Vec::new() });
                }
            }
        }
        Ok(contests)
    }

    /// Returns the number of sequences that fit into the memory limit.
    fn largest_batch(
        &self,
        candidate: &Candidate,
        workload: Workload,
        device: &Device,
    ) -> Result<usize, BenchError> {
        let Batches::Memory(bytes) = self.batches else { return Ok(1) };
        let storage = Storage::of(&candidate.config, self.precision).on(device);
        Limits::that_fit(&candidate.config, storage, room(workload), usize::MAX, bytes)
            .map(|limits| limits.max_sequences)
            .map_err(|source| {
                let model = candidate.name.clone();
                BenchError::NoBatch { model, workload, source }
            })
    }

    /// Checks that a batch fits into the memory of the machine.
    fn check_memory(&self, setup: &Setup<'_>) -> Result<(), BenchError> {
        let needed = setup.memory().total();
        match machine_memory() {
            Some(available) if self.device.is_processor() && needed > available => {
                Err(BenchError::Memory {
                    model: setup.candidate.name.clone(),
                    workload: setup.workload,
                    batch: setup.batch,
                    needed,
                    available,
                })
            }
            _ => Ok(()),
        }
    }
}

impl Contest<'_> {
    /// Returns the row that summarizes the rounds from `first` on. Rounds are counted from 0.
    fn row(&self, first: usize) -> Option<BenchRow> {
        let rounds = &self.rounds[first..];
        let spread = |value: &dyn Fn(&(Measurement, Prediction)) -> f64| {
            Spread::of(rounds.iter().map(value))
        };
        let (last, prediction) = rounds.last()?;
        let Setup { candidate, workload, batch, .. } = self.setup;
        let memory = self.setup.memory();
        let first_token = |round: &(Measurement, _)| round.0.first_token.unwrap_or(f64::NAN);
        Some(BenchRow {
            model: candidate.name.clone(),
            family: candidate.config.family(),
            block_length: candidate.config.block_length(),
            work: workload.to_string(),
            context: match workload {
                Workload::AtContext(context) => Some(context),
                Workload::Lengths(_) => None,
            },
            batch,
            rate: spread(&|round| round.0.rate)?,
            first_token: last.first_token.and(spread(&first_token)),
            sequence_bytes: Some(memory.caches / batch as u64),
            predicted_bytes: Some(memory.total()),
            peak_bytes: rounds.iter().filter_map(|round| round.0.peak_bytes).max(),
            token_flops: prediction.token.flops(),
            token_bytes: prediction.token.weights + prediction.token.caches,
            roofline: spread(&|round| round.1.bound)?,
            predicted: spread(&|round| round.1.rate)?,
            share: spread(&|round| round.0.rate / round.1.bound)?,
            predicted_share: spread(&|round| round.0.rate / round.1.rate)?,
            loss: candidate.loss,
        })
    }
}
