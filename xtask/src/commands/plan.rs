//! `cargo xtask plan`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use block_transformer_cost::{
    Cost, Lengths, Machine, Number, Published, Sizes, decode, estimate, largest_batch, published,
};
use block_transformer_generation::Limits;
use block_transformer_zoo::ModelConfig;

use super::bench::{Peaks, aligned, number, size};
use crate::bytes::parse_bytes;
use crate::counts::count;
use crate::device::DeviceName;

/// Arguments of `plan`.
#[derive(clap::Args)]
pub struct Args {
    /// Presets to plan for
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME,..",
        default_value = "block-170m,vanilla-160m"
    )]
    preset: Vec<String>,
    /// `h100`, `a100`, `cpu` (this machine, measured now), or a TOML file with name, flops,
    /// bandwidth, memory, and f32, bf16 or f16 for weights and numbers
    #[arg(long, value_name = "SPEC", default_value = "cpu")]
    device_spec: PathBuf,
    /// Tokens of prompt and continuation [default: 2048:128,128:2048 without --context]
    #[arg(long, value_delimiter = ',', value_name = "PROMPT:NEW,..")]
    lengths: Vec<Lengths>,
    /// Tokens of context to decode behind
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,..", value_parser = count)]
    context: Vec<usize>,
    /// Sequences together, instead of as many as fit
    #[arg(long, value_name = "N", value_parser = count)]
    batch: Option<usize>,
    /// Memory to fill, instead of all of the machine's
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
}

/// What a preset would do.
struct Plan<'a> {
    name: &'a str,
    config: &'a ModelConfig,
    work: String,
    /// Tokens a sequence has room for.
    tokens: usize,
    batch: usize,
    /// What a token takes.
    token: Cost,
    first_token: Option<f64>,
    /// Tokens a second, predicted and at most.
    rate: f64,
    bound: f64,
    /// What the published implementation was measured to do.
    published: Option<Published>,
}

const HEAD: [&str; 11] = [
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
    "at most",
];

impl Args {
    /// Prints what each preset would do.
    pub fn run(self) -> Result<ExitCode> {
        let machine = self.machine()?;
        let mut lengths = self.lengths.clone();
        if lengths.is_empty() && self.context.is_empty() {
            lengths = vec![Lengths { prompt: 2048, new: 128 }, Lengths { prompt: 128, new: 2048 }];
        }
        let mut plans = Vec::new();
        for name in &self.preset {
            let config = &block_transformer_zoo::preset(name)?.model;
            for &lengths in &lengths {
                plans.push(self.plan(name, config, &machine, lengths)?);
            }
            for &context in &self.context {
                plans.push(self.plan_at(name, config, &machine, context)?);
            }
        }
        say!(
            "{}: {} TFLOP/s, {} GB/s, {} of memory; weights {}, caches and activations {}\n",
            machine.name,
            number(machine.flops / 1e12),
            number(machine.bandwidth / 1e9),
            size(machine.memory),
            machine.weights,
            machine.numbers
        );
        let cells = plans.iter().map(|plan| plan.cells(&machine)).collect();
        say!("{}", aligned(&HEAD, cells));
        say!(
            "tokens/s: every part as fast as the peaks allow, one after the other. At most: arithmetic, or \
             weights and caches, whichever takes longer, all overlapping. First token: of a prompt alone."
        );
        for line in plans.iter().filter_map(|plan| plan.against_published(&machine)) {
            say!("{line}");
        }
        if let Some(line) = traffic(&plans, &machine) {
            say!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn machine(&self) -> Result<Machine> {
        let mut machine = if self.device_spec == Path::new("cpu") {
            let name = DeviceName::Flex;
            Peaks::measure(name, &name.open()?)?.machine(Number::F32)
        } else {
            Machine::open(&self.device_spec).context("--device-spec")?
        };
        if let Some(bytes) = self.memory {
            machine.memory = bytes as f64;
        }
        Ok(machine)
    }

    fn batch(
        &self,
        name: &str,
        config: &ModelConfig,
        machine: &Machine,
        tokens: usize,
    ) -> Result<usize> {
        let fit = || largest_batch(config, machine, tokens).map(|limits| limits.sequences);
        match self.batch {
            Some(batch) => Ok(batch),
            None => fit().with_context(|| format!("{name}, {tokens} tokens, {}", machine.name)),
        }
    }

    fn plan<'a>(
        &self,
        name: &'a str,
        config: &'a ModelConfig,
        machine: &Machine,
        lengths: Lengths,
    ) -> Result<Plan<'a>> {
        let tokens = lengths.total();
        let batch = self.batch(name, config, machine, tokens)?;
        let all = estimate(config, machine, lengths, batch);
        let on_h100 = self.device_spec == Path::new("h100");
        Ok(Plan {
            name,
            config,
            work: lengths.to_string(),
            tokens,
            batch,
            token: all.token,
            first_token: Some(all.first_token),
            rate: all.rate,
            bound: all.bound,
            published: published(name, lengths).filter(|_| on_h100),
        })
    }

    fn plan_at<'a>(
        &self,
        name: &'a str,
        config: &'a ModelConfig,
        machine: &Machine,
        context: usize,
    ) -> Result<Plan<'a>> {
        let tokens = context.saturating_add(1);
        let batch = self.batch(name, config, machine, tokens)?;
        let step = decode(config, batch, context, Sizes::from(machine));
        let rows = batch as f64;
        Ok(Plan {
            name,
            config,
            work: format!("at {context}"),
            tokens,
            batch,
            token: step.total() * (1.0 / rows),
            first_token: None,
            rate: rows / step.seconds(machine),
            bound: rows / step.total().bound(machine),
            published: None,
        })
    }
}

impl Plan<'_> {
    fn cells(&self, machine: &Machine) -> Vec<String> {
        vec![
            self.name.into(),
            self.work.clone(),
            self.batch.to_string(),
            size(self.sequence_bytes(machine)),
            number(self.token.flops() / 1e6),
            size(self.token.weights),
            size(self.token.caches),
            size(self.token.activations),
            self.first_token.map_or("-".into(), |seconds| format!("{} ms", number(seconds * 1e3))),
            number(self.rate),
            number(self.bound),
        ]
    }

    /// Bytes of keys and values of a sequence.
    fn sequence_bytes(&self, machine: &Machine) -> f64 {
        let limits = Limits { sequences: 1, tokens: self.tokens };
        let in_f32 = limits.memory(self.config, 0).caches as f64;
        in_f32 * machine.numbers.bytes() as f64 / Number::F32.bytes() as f64
    }

    fn against_published(&self, machine: &Machine) -> Option<String> {
        let published = self.published?;
        let rate = published.rate * 1e3;
        Some(format!(
            "{}, {}: published {} tokens/s, {:.1}% of the predicted; {} MB of keys, values and \
             activations a sample, of keys and values predicted {} MB",
            self.name,
            self.work,
            number(rate),
            100.0 * rate / self.rate,
            number(published.memory),
            number(self.sequence_bytes(machine) / 1e6)
        ))
    }
}

/// What a token of context costs a block model, and a vanilla one.
fn traffic(plans: &[Plan<'_>], machine: &Machine) -> Option<String> {
    let of = |family: &str| plans.iter().find(|plan| plan.config.family() == family);
    let read = |plan: &Plan<'_>| {
        let caches = |context| decode(plan.config, 1, context, Sizes::from(machine)).total().caches;
        (caches(1 << 16) - caches(0)) / f64::from(1 << 16)
    };
    let (block, vanilla) = (of("block")?, of("vanilla")?);
    Some(format!(
        "keys and values read for each token of context, a token written: {} {} bytes, {} {}: {} times less",
        block.name,
        number(read(block)),
        vanilla.name,
        number(read(vanilla)),
        number(read(vanilla) / read(block))
    ))
}
