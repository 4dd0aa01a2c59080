//! `plan --ranks`: data-parallel training on several ranks

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use block_transformer_bench::{number, size};
use block_transformer_cost::{
    AllReduce, Machine, Network, RankCompute, RankStep, Scaling, StepTime, TrainingStep,
    bucket_bytes, late_params,
};
use block_transformer_zoo::{FamilyConfig, Preset};
use bytesize::ByteSize;
use clap::ValueEnum;

use super::memory::PEAKS;
use super::plan_scaling;
use crate::counts::{self, count};
use crate::paths;
use crate::units::{self, Stated};

/// The largest number of ranks of a table, apart from that of `--ranks`.
const MOST: usize = 1024;
/// Bytes of the smallest bucket.
const LEAST_BUCKET: u64 = 1 << 16;
/// Sequences of a micro-batch if `--batch` is not given.
const BATCH: usize = 8;
const HEADING: &str = "Training on several ranks";

/// The format of gradients on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wire {
    F32,
    Bf16,
}

/// Flags of `plan --ranks`.
#[derive(clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct Flags {
    /// Predict training steps on 1, 2, 4 .. 1024 and N ranks, which are GPUs or machines that sum their
    /// gradients over a network
    #[arg(long, value_name = "N", value_parser = count(), requires_all = ["network", "latency"],
        conflicts_with_all = ["training", "lengths", "memory"])]
    pub(super) ranks: Option<usize>,
    /// Speed of the network from each rank, such as 25GB/s or 10Gbit/s
    #[arg(long, value_name = "SPEED", value_parser = units::speed, requires = "ranks")]
    network: Option<Stated>,
    /// Time of a message without content, such as 5us or 0.2ms
    #[arg(long, value_name = "TIME", value_parser = units::time, requires = "ranks")]
    latency: Option<Stated>,
    /// Micro-batches of a rank per step [default: 1]
    #[arg(long, value_name = "K", value_parser = count(), requires = "ranks")]
    accumulate: Option<usize>,
    /// Sequences of a step, which the ranks share (strong scaling) [default: each rank keeps its own]
    #[arg(long, value_name = "N", value_parser = count(), requires = "ranks", conflicts_with = "accumulate")]
    total_batch: Option<usize>,
    /// Format of the gradients on the network
    #[arg(long, value_name = "FORMAT", default_value = "f32", requires = "ranks")]
    wire: Wire,
    /// Bytes of gradients that are summed together [default: those of `train`, an eighth of all, and 1MB to 25MB]
    #[arg(long, value_name = "SIZE", value_parser = counts::memory, requires = "ranks")]
    bucket: Option<ByteSize>,
    /// Seconds in which a rank copies and sums gradients on the cores that compute: the step of two ranks on one machine,
    /// less that of one [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = units::duration, requires = "ranks")]
    host_time: Option<Stated>,
    /// Speed at which a rank adds received gradients to its own [default: they take no time]
    #[arg(long, value_name = "SPEED", value_parser = units::speed, requires = "ranks")]
    sum_speed: Option<Stated>,
    /// Measured time of a step of one rank alone, in seconds, instead of a prediction for --device-spec
    #[arg(long, value_name = "SECONDS", value_parser = units::duration, requires = "ranks",
        conflicts_with_all = ["mfu", "peak_tflops", "device_spec"])]
    step_time: Option<Stated>,
    /// Peak of a rank in TFLOP/s, instead of that of --device-spec
    #[arg(long, value_name = "TFLOPS", value_parser = tflops, requires = "ranks")]
    peak_tflops: Option<f64>,
    /// Share of the peak that the FLOPs of the model use, instead of the time of memory and launches
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "ranks")]
    mfu: Option<f64>,
    /// Picture of the efficiency by ranks to write, .svg or .png; repeat it for both
    #[arg(long, value_name = "FILE", requires = "ranks")]
    plot: Vec<PathBuf>,
}

fn tflops(text: &str) -> Result<f64, String> {
    let peak = text.parse().ok().filter(|peak| PEAKS.contains(peak));
    peak.ok_or_else(|| format!("must be a number from {} to {}", PEAKS.start(), PEAKS.end()))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share >= 1e-6 && *share <= 1.0);
    share.ok_or_else(|| "must be a number above 0 and at most 1, such as 0.4".into())
}

/// The predicted steps of a preset.
pub(super) struct Curve {
    pub preset: &'static Preset,
    /// Bytes of gradients of a step on the network.
    pub gradients: f64,
    /// By ranks, in growing order.
    pub points: Vec<Point>,
}

/// The predicted step of a preset on some ranks.
pub(super) struct Point {
    pub ranks: usize,
    /// Sequences of the step over all ranks.
    pub sequences: usize,
    /// The time by algorithm, in the order of [`AllReduce::ALL`].
    pub times: [StepTime; 2],
    scaling: Scaling,
    /// Seconds of the step of one rank alone.
    alone: f64,
}

impl Point {
    /// The parallel efficiency of a step of `seconds`.
    pub(super) fn efficiency(&self, seconds: f64) -> f64 {
        self.scaling.efficiency(self.alone, self.ranks, seconds)
    }

    /// The parallel efficiency with the faster algorithm and overlap.
    pub(super) fn best(&self) -> f64 {
        let seconds = self.times.iter().map(|time| time.seconds(true));
        self.efficiency(seconds.fold(f64::INFINITY, f64::min))
    }
}

impl Flags {
    /// Predicts the steps of `presets` on `ranks` ranks, prints them and draws them. `machine` opens or measures the
    /// machine, if it is needed.
    pub(super) fn print(
        &self,
        ranks: usize,
        presets: &[&'static Preset],
        batch: Option<usize>,
        contexts: &[usize],
        machine: impl FnOnce() -> Result<Machine>,
    ) -> Result<()> {
        self.check(ranks, presets, contexts)?;
        let network = self.network()?;
        let sequences = self.sequences(batch);
        let (compute, described) = self.compute(sequences, machine)?;
        let most = batch.unwrap_or(BATCH);
        let curve = |preset: &&'static Preset| {
            let context = contexts.first().copied().unwrap_or(preset.train.context);
            self.curve(preset, ranks, (sequences, most, context), &compute, &network)
        };
        let curves: Vec<Curve> = presets.iter().map(curve).collect();
        let network = self.described_network();
        say!("predicted by formula, not measured: training steps on several ranks");
        say!(
            "network: {network}; gradients in {}, {}",
            self.wire_name(),
            match self.bucket {
                Some(bucket) => format!("buckets of {}", size(bucket.as_u64() as f64)),
                None => "in buckets of an eighth, 1.0 MB to 25.0 MB".into(),
            }
        );
        let of = if self.total_batch.is_some() { "over all ranks" } else { "per rank" };
        say!("step: {sequences} sequences {of}, in micro-batches of at most {most}");
        say!("computation: {described}\n");
        plan_scaling::print(&curves, ranks);
        if self.total_batch.is_some_and(|total| total < MOST) {
            say!("Numbers of ranks above the sequences of a step are left out.");
        }
        let picture = plan_scaling::plot(&curves, &network);
        for path in &self.plot {
            picture.write(path)?;
            say!("plot {}", path.display());
        }
        Ok(())
    }

    /// Checks what depends on several flags, and the paths of the pictures.
    fn check(&self, ranks: usize, presets: &[&Preset], contexts: &[usize]) -> Result<()> {
        ensure!(contexts.len() <= 1, "--context: give one number of tokens with --ranks");
        ensure!(
            self.step_time.is_none() || presets.len() == 1,
            "--step-time is the time of one model; name it with --preset"
        );
        if let Some(bucket) = self.bucket {
            ensure!(bucket.as_u64() >= LEAST_BUCKET, "--bucket {bucket}: must be at least 64KiB");
        }
        if let Some(total) = self.total_batch {
            ensure!(
                ranks <= total,
                "--ranks {ranks}: a step of --total-batch {total} has no sequence for some of them; give at most {total} \
                 ranks, or a larger step"
            );
        }
        for plot in &self.plot {
            let known = plot.extension().is_some_and(|ending| ending == "svg" || ending == "png");
            ensure!(known, "--plot {}: the name must end in .svg or .png", plot.display());
            paths::output_file("--plot", plot)?;
        }
        let Some(context) = contexts.first() else { return Ok(()) };
        for preset in presets {
            let length = preset.model.block_length();
            ensure!(
                context.is_multiple_of(length),
                "--context {context}: {} has blocks of {length} tokens; give a multiple of {length}",
                preset.name
            );
        }
        Ok(())
    }

    /// Sequences of the step of one rank alone.
    fn sequences(&self, batch: Option<usize>) -> usize {
        let own = batch.unwrap_or(BATCH).saturating_mul(self.accumulate.unwrap_or(1));
        self.total_batch.unwrap_or(own)
    }

    fn network(&self) -> Result<Network> {
        let value = |stated: &Option<Stated>| stated.as_ref().map_or(0.0, |stated| stated.value);
        let network = Network::new(value(&self.network), value(&self.latency));
        let network = network.context("--network and --latency")?;
        match &self.sum_speed {
            Some(speed) => network.with_sums(speed.value).context("--sum-speed"),
            None => Ok(network),
        }
    }

    fn described_network(&self) -> String {
        let text =
            |stated: &Option<Stated>| stated.as_ref().map_or_else(String::new, Stated::to_string);
        let sums = self.sum_speed.as_ref().map(|speed| format!(", sums at {speed}"));
        let (network, latency) = (text(&self.network), text(&self.latency));
        format!("{network}, {latency} per message{}", sums.unwrap_or_default())
    }

    fn wire_name(&self) -> &'static str {
        match self.wire {
            Wire::F32 => "f32",
            Wire::Bf16 => "bf16",
        }
    }

    /// Returns how long a rank computes, and its description.
    fn compute(
        &self,
        sequences: usize,
        machine: impl FnOnce() -> Result<Machine>,
    ) -> Result<(RankCompute, String)> {
        if let Some(time) = &self.step_time {
            let compute = RankCompute::Measured { seconds: time.value, sequences };
            return Ok((
                compute,
                format!("{} s per step of one rank alone, as given", number(time.value)),
            ));
        }
        let stated = self.peak_tflops.map(|peak| peak * 1e12);
        if let (Some(peak), Some(mfu)) = (stated, self.mfu) {
            return Ok(utilization(peak, mfu, "each rank"));
        }
        let mut machine = machine()?;
        machine.flops = stated.unwrap_or(machine.flops);
        if let Some(mfu) = self.mfu {
            return Ok(utilization(machine.flops, mfu, &machine.name));
        }
        let described = format!(
            "predicted for {}, {} TFLOP/s, {} GB/s, {} us per launch; matrix products in {}",
            machine.name,
            number(machine.flops / 1e12),
            number(machine.bandwidth / 1e9),
            number(machine.launch * 1e6),
            machine.precision.matrices()
        );
        Ok((RankCompute::Machine(machine), described))
    }

    /// Predicts the steps of a preset. One rank alone has `sequences` sequences of `context` tokens, in micro-batches
    /// of at most `most`.
    fn curve(
        &self,
        preset: &'static Preset,
        ranks: usize,
        (sequences, most, context): (usize, usize, usize),
        compute: &RankCompute,
        network: &Network,
    ) -> Curve {
        let (model, scaling) = (&preset.model, self.scaling());
        let bytes = |params: usize| {
            let value = match self.wire {
                Wire::F32 => 4,
                Wire::Bf16 => 2,
            };
            (params * value) as f64
        };
        let gradients = bytes(model.num_params());
        let seconds = |share: usize| {
            let step = TrainingStep { batch: share, micro_batch: most.min(share), context };
            (compute.seconds(model, step), step.micro_batches())
        };
        let (alone, _) = seconds(sequences);
        let point = |ranks: usize| {
            let (compute, micro_batches) = seconds(scaling.share(sequences, ranks)?);
            let step = RankStep {
                compute,
                micro_batches,
                gradients,
                late: bytes(late_params(model)),
                bucket: self.bucket.map_or(bucket_bytes(gradients), |size| size.as_u64() as f64),
                host: self.host_time.as_ref().map_or(0.0, |time| time.value),
            };
            let times = AllReduce::ALL.map(|algorithm| step.time(algorithm, network, ranks));
            let sequences =
                if scaling == Scaling::Weak { sequences.saturating_mul(ranks) } else { sequences };
            Some(Point { ranks, sequences, times, scaling, alone })
        };
        let powers = (0..=MOST.ilog2()).map(|power| 1 << power);
        let points = powers.chain([ranks]).collect::<BTreeSet<usize>>().into_iter();
        Curve { preset, gradients, points: points.filter_map(point).collect() }
    }

    fn scaling(&self) -> Scaling {
        if self.total_batch.is_some() { Scaling::Strong } else { Scaling::Weak }
    }
}

fn utilization(peak: f64, mfu: f64, of: &str) -> (RankCompute, String) {
    let described = format!("{of} at {}% of {} TFLOP/s", number(100.0 * mfu), number(peak / 1e12));
    (RankCompute::Utilization { peak, mfu }, described)
}
