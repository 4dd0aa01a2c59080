//! `plan`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use block_transformer_bench::{number, size, table};
use block_transformer_cost::{
    Lengths, Machine, Peaks, Plan, Workload, cache_bytes_per_context_token, published,
};
use block_transformer_device::DeviceName;
use block_transformer_zoo::{BLOCK_FAMILY, FamilyConfig, Precision, Preset};
use bytesize::ByteSize;

use super::inputs::presets;
use super::memory::planned;
use super::{plan_ranks, plan_training};
use crate::counts::{self, count};
use crate::device;

/// The workloads if neither `--lengths` nor `--context` is given.
const LENGTHS: [Lengths; 2] =
    [Lengths { prompt: 2048, new: 128 }, Lengths { prompt: 128, new: 2048 }];

/// The presets if `--preset` is not given.
const PRESETS: [&str; 2] = ["block-170m", "vanilla-160m"];

/// Arguments of `plan`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Presets to plan for [default: block-170m,vanilla-160m; with --ranks: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    preset: Vec<String>,
    /// `h100`, `h100-tf32`, `a100`, `cpu` (this machine, measured now), or a TOML file with name,
    /// flops, bandwidth, memory, the seconds of a kernel launch, and the precision [default: cpu;
    /// with --ranks: h100]
    #[arg(long, value_name = "SPEC")]
    device_spec: Option<PathBuf>,
    /// Tokens of prompt and continuation [default without --context: 2048:128,128:2048]
    #[arg(long, value_delimiter = ',', value_name = "PROMPT:NEW,..")]
    lengths: Vec<Lengths>,
    /// Tokens of context to decode after; with --ranks, tokens per sequence [default: those of the preset]
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,..", value_parser = count())]
    context: Vec<usize>,
    /// Sequences decoded together [default: the largest number that fits into memory]; with --ranks,
    /// sequences of a micro-batch of a rank [default: 8]
    #[arg(long, value_name = "N", value_parser = count())]
    batch: Option<usize>,
    /// Memory to use [default: all of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = counts::memory)]
    memory: Option<ByteSize>,
    /// Predict the training that the presets describe instead of decoding
    #[arg(long, conflicts_with_all = ["lengths", "context", "batch", "memory"])]
    training: bool,
    /// Sequences whose gradients are computed together
    #[arg(long, value_name = "N", value_parser = count(), default_value = "8", requires = "training")]
    micro_batch: usize,
    #[command(flatten)]
    several: plan_ranks::Flags,
}

const HEAD: [&str; 13] = [
    "preset",
    "work",
    "batch",
    "KV/sequence",
    "MFLOP/token",
    "weights/token",
    "KV/token",
    "activ./token",
    "first token",
    "tokens/s",
    "launches",
    "with them",
    "at most",
];

impl Args {
    /// Prints the predicted batch, memory and speed of each preset.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let presets = self.presets()?;
        if let Some(ranks) = self.several.ranks {
            let machine = || self.machine();
            self.several.print(ranks, &presets, self.batch, &self.context, machine)?;
            return Ok(ExitCode::SUCCESS);
        }
        let machine = self.machine()?;
        if self.training {
            plan_training::print(&presets, &machine, self.micro_batch);
            return Ok(ExitCode::SUCCESS);
        }
        let mut plans = Vec::new();
        for &preset in &presets {
            let name = &preset.name;
            for workload in self.workloads() {
                let plan = Plan::new(&preset.model, &machine, workload, self.batch);
                let plan = plan.with_context(|| format!("{name}, {workload}, {}", machine.name))?;
                plans.push((preset, plan));
            }
        }
        say!(
            "{}: {} TFLOP/s, {} GB/s, {} of memory; weights {}, caches {}\n",
            machine.name,
            number(machine.flops / 1e12),
            number(machine.bandwidth / 1e9),
            size(machine.memory),
            machine.precision.matrices(),
            machine.precision.cache()
        );
        let rows = plans.iter().map(|(preset, plan)| cells(&preset.name, plan));
        say!("{}\n", table(&HEAD, 2, rows).trim_fmt());
        say!(
            "tokens/s: predicted; the phases of a step run one after the other, each at the peaks. At most: the \
             limit given by all arithmetic or by all reading of weights and caches, whichever takes longer. \
             Launches: kernel launches per step, which decodes a token of each sequence; with them: tokens/s if each \
             launch adds {} us, which a CUDA graph avoids. \
             First token: the time to the first token of a prompt that is decoded alone.",
            number(machine.launch * 1e6)
        );
        if self.device_spec() == Path::new("h100") {
            for line in plans.iter().filter_map(|(preset, plan)| compare(&preset.name, plan)) {
                say!("{line}");
            }
        }
        let is_processor = self.device_spec() == Path::new("cpu");
        say!("\n{}\n", planned(&presets, &machine, is_processor));
        say!(
            "Training: weights with their copies for products, gradients, moments of AdamW; activations and logits that \
             one more sequence adds, kept or recomputed by layer (--recompute); the largest micro-batch that fits.{}",
            if is_processor { "" } else { " On a GPU this is predicted, not measured." }
        );
        if let Some(line) = traffic(&presets, &machine) {
            say!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn presets(&self) -> Result<Vec<&'static Preset>> {
        match (self.preset.is_empty(), self.several.ranks) {
            (true, Some(_)) => Ok(block_transformer_zoo::presets().iter().collect()),
            (true, None) => presets(&PRESETS.map(String::from)),
            (false, _) => presets(&self.preset),
        }
    }

    fn device_spec(&self) -> &Path {
        let default = if self.several.ranks.is_some() { "h100" } else { "cpu" };
        self.device_spec.as_deref().unwrap_or(Path::new(default))
    }

    fn workloads(&self) -> Vec<Workload> {
        let default = self.lengths.is_empty() && self.context.is_empty();
        let lengths = if default { &LENGTHS[..] } else { &self.lengths };
        let lengths = lengths.iter().copied().map(Workload::Lengths);
        lengths.chain(self.context.iter().copied().map(Workload::AtContext)).collect()
    }

    fn machine(&self) -> Result<Machine> {
        let mut machine = if self.device_spec() == Path::new("cpu") {
            let name = DeviceName::Flex;
            Peaks::measure(name, &device::open(name)?)?.machine(Precision::default())
        } else {
            Machine::open(self.device_spec()).context("--device-spec")?
        };
        if let Some(memory) = self.memory {
            machine.memory = memory.as_u64() as f64;
        }
        Ok(machine)
    }
}

fn cells(name: &str, plan: &Plan) -> Vec<String> {
    let (prediction, token) = (&plan.prediction, &plan.prediction.token);
    let milliseconds = |seconds: f64| format!("{} ms", number(seconds * 1e3));
    vec![
        name.into(),
        plan.workload.to_string(),
        plan.batch.to_string(),
        size(plan.sequence_bytes),
        number(token.flops() / 1e6),
        size(token.weights),
        size(token.caches),
        size(token.activations),
        prediction.first_token.map_or("-".into(), milliseconds),
        number(prediction.rate),
        prediction.launches.map_or("-".into(), |launches| format!("{launches:.1}")),
        prediction.rate_with_launches.map_or("-".into(), number),
        number(prediction.bound),
    ]
}

/// Compares a plan with the published measurement, if there is one.
fn compare(name: &str, plan: &Plan) -> Option<String> {
    let Workload::Lengths(lengths) = plan.workload else { return None };
    let published = published(name, lengths)?;
    let rate = published.rate * 1e3;
    Some(format!(
        "{name}, {lengths}: published {} tokens/s, {:.1}% of the predicted; published {} MB of keys, values \
         and activations per sequence, predicted {} MB of keys and values",
        number(rate),
        100.0 * rate / plan.prediction.rate,
        number(published.memory),
        number(plan.sequence_bytes / 1e6)
    ))
}

/// Compares the first preset with blocks and the first preset without blocks: the bytes of keys and
/// values that one generated token reads, per token of context.
fn traffic(presets: &[&Preset], machine: &Machine) -> Option<String> {
    let first =
        |blocks: bool| presets.iter().find(|p| (p.model.family() == BLOCK_FAMILY) == blocks);
    let (block, vanilla) = (first(true)?, first(false)?);
    let [ours, theirs] =
        [block, vanilla].map(|preset| cache_bytes_per_context_token(&preset.model, machine));
    Some(format!(
        "bytes of keys and values read for one generated token, per token of context: {} {}, {} {}, {} times less",
        block.name,
        number(ours),
        vanilla.name,
        number(theirs),
        number(theirs / ours)
    ))
}
