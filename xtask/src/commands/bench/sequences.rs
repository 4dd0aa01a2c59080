//! `cargo xtask bench train` and `cargo xtask bench eval`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use block_transformer_cost::{Machine, Number, Sizes, decode};
use block_transformer_training::gradients::clip_global_norm;
use block_transformer_zoo::{LanguageModel, TokenBatch};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Int, Tensor};

use super::case::Case;
use super::peaks::Peaks;
use super::report::{Report, Row, Spread, create};
use crate::counts::{MOST, count, positive};
use crate::device::{DeviceName, Weights};
use crate::memory::Growth;

/// Steps that are not counted: they bring the process its memory.
const WARM_UP: usize = 2;

/// What is done with sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Loss only.
    Eval,
    /// Loss, gradients, and a step.
    Train,
}

/// Arguments of `bench train` and `bench eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Presets, measured in turn in one run
    #[arg(long, value_delimiter = ',', default_value = "block-170m,vanilla-160m")]
    presets: Vec<String>,
    /// Sequences a step
    #[arg(long, default_value = "1", value_parser = count)]
    batch: usize,
    /// Tokens a sequence
    #[arg(long, default_value = "1024", value_parser = count)]
    context: usize,
    /// Counted steps of each preset, after two for warming up
    #[arg(long, default_value = "3", value_parser = positive)]
    steps: usize,
    /// Folder for results.json, results.csv and summary.md
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Backend that computes
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Measures one preset after the other, and prints a table.
    pub fn run(self, kind: Kind) -> Result<ExitCode> {
        let cases = self.presets.iter().map(|name| Case::preset(name));
        let cases: Vec<Case> = cases.collect::<Result<_>>()?;
        for case in &cases {
            let length = case.config.block_length();
            ensure!(
                self.context.is_multiple_of(length) && self.context > length,
                "--context: {} must be several blocks of {length}",
                self.context
            );
        }
        ensure!(
            self.batch * self.context <= MOST,
            "--batch: {} sequences of {} tokens are more than {MOST} tokens a step",
            self.batch,
            self.context
        );
        self.out.as_deref().map_or(Ok(()), create)?;
        let device = self.device.open()?;
        let (mut peaks, mut rows) = (Vec::new(), Vec::new());
        for case in &cases {
            let before = Peaks::measure(self.device, &device)?;
            let growth = Growth::start();
            let seconds = self.measure(kind, case, &device)?;
            let bytes = growth.bytes();
            let beside = before.or(Peaks::measure(self.device, &device)?);
            let machine = beside.machine(Number::F32);
            rows.extend(self.row(kind, case, &machine, &seconds, bytes));
            peaks.push(beside);
        }
        let title = match kind {
            Kind::Eval => "Loss of whole sequences",
            Kind::Train => "Training steps",
        };
        let report = Report {
            title: title.into(),
            device: self.device.name(),
            weights: "f32".into(),
            peaks,
            rows,
        };
        say!("{}\n{}\n{}", report.table(), report.peaks_line(), report.legend());
        if let Some(dir) = &self.out {
            report.write(dir)?;
            say!("written to {}: results.json, results.csv, summary.md", dir.display());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn row(
        &self,
        kind: Kind,
        case: &Case,
        machine: &Machine,
        seconds: &[f64],
        peak_bytes: Option<u64>,
    ) -> Option<Row> {
        let tokens = self.batch * self.context;
        // the products of a token are those of decoding it; gradients take twice as many again, and
        // weights are read once a step, with their gradients and moments as well
        let token = decode(&case.config, tokens, self.context / 2, Sizes::from(machine)).total();
        let (times, name) = match kind {
            Kind::Eval => (1.0, "loss"),
            Kind::Train => (3.0, "training"),
        };
        let token_flops = times * token.flops() / tokens as f64;
        let bound = machine.flops / token_flops;
        let rates = || seconds.iter().map(|seconds| tokens as f64 / seconds);
        Some(Row {
            model: case.name.clone(),
            family: case.config.family(),
            work: format!("{name} of {}", self.context),
            context: None,
            batch: self.batch,
            rate: Spread::of(rates())?,
            first_token: None,
            sequence_bytes: None,
            predicted_bytes: None,
            peak_bytes,
            token_flops,
            token_bytes: times * token.weights / tokens as f64,
            roofline: Spread::of([bound])?,
            predicted: Spread::of([bound])?,
            share: Spread::of(rates().map(|rate| rate / bound))?,
            predicted_share: Spread::of(rates().map(|rate| rate / bound))?,
            loss: None,
        })
    }

    /// Seconds of each counted step.
    fn measure(&self, kind: Kind, case: &Case, device: &Device) -> Result<Vec<f64>> {
        let device = match kind {
            Kind::Eval => device.clone(),
            Kind::Train => device.clone().autodiff(),
        };
        let (shape, config) = ([self.batch, self.context], &case.config);
        let uniform = Distribution::Uniform(2.0, config.vocab_size() as f64);
        let batch = TokenBatch {
            ids: Tensor::<2, Int>::random(shape, uniform, &device),
            real: Tensor::<2, Int>::ones(shape, &device).bool(),
            block_length: config.block_length(),
        };
        let mut model = case.model(Weights::F32, &device)?;
        let adam = AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1);
        let mut optimizer = adam.init();
        let mut seconds = Vec::new();
        for step in 0..self.steps + WARM_UP {
            let start = Instant::now();
            match kind {
                Kind::Eval => drop(model.loss(&batch)),
                Kind::Train => model = trained(model, &batch, &mut optimizer),
            }
            device.sync()?;
            if step >= WARM_UP {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        Ok(seconds)
    }
}

/// The model after a whole step.
fn trained(
    model: LanguageModel,
    batch: &TokenBatch,
    optimizer: &mut ModuleOptimizer,
) -> LanguageModel {
    let loss = model.loss(batch);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let (gradients, _) = clip_global_norm(&model, gradients, 1.0);
    optimizer.step(1e-4, model, gradients)
}
