//! `cargo xtask bench`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use clap::Subcommand;
use zoo::TokenBatch;
use zoo_training::gradients::clip_global_norm;

use crate::device::DeviceName;

/// Steps that are not counted: they bring the process its memory.
const WARM_UP: usize = 2;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Whole training steps (forward, backward, clipping, AdamW) of several presets, in turn
    Train(TrainArgs),
}

#[derive(clap::Args)]
struct TrainArgs {
    /// Presets, measured in turn in one run
    #[arg(long, value_delimiter = ',', default_value = "block-170m,vanilla-160m")]
    presets: Vec<String>,
    /// Sequences a step
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Tokens a sequence
    #[arg(long, default_value_t = 1024)]
    context: usize,
    /// Counted steps of each preset, after two for warming up
    #[arg(long, default_value_t = 3)]
    steps: usize,
    /// Backend that computes
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Runs the benchmark and prints a table.
    pub fn run(self) -> Result<ExitCode> {
        let What::Train(args) = self.what;
        args.run()
    }
}

impl TrainArgs {
    fn run(self) -> Result<ExitCode> {
        ensure!(self.batch > 0, "--batch: must be at least 1");
        ensure!(self.steps > 0, "--steps: must be at least 1");
        let device = self.device.open()?;
        say!(
            "training, {} x {} tokens a step, f32, {:?}; matmul peak {:.1} GFLOP/s",
            self.batch,
            self.context,
            self.device,
            matmul_gflops(&device)?
        );
        say!("{:<26} {:>9} {:>9} {:>9} {:>9}", "preset", "tokens/s", "min", "max", "peak MiB");
        for name in &self.presets {
            let seconds = self.measure(name, &device)?;
            let rate = |seconds: f64| (self.batch * self.context) as f64 / seconds;
            say!(
                "{name:<26} {:>9.1} {:>9.1} {:>9.1} {:>9}",
                rate(seconds[seconds.len() / 2]),
                rate(seconds[seconds.len() - 1]),
                rate(seconds[0]),
                peak_mib().map_or_else(|| "?".into(), |mib| mib.to_string()),
            );
        }
        say!("tokens/s: median, slowest and fastest step. Peak memory: of the process so far.");
        Ok(ExitCode::SUCCESS)
    }

    /// Seconds of each counted step, sorted.
    fn measure(&self, name: &str, device: &Device) -> Result<Vec<f64>> {
        let config = &zoo::preset(name)?.model;
        let device = device.clone().autodiff();
        let length = config.block_length();
        ensure!(
            self.context.is_multiple_of(length) && self.context > length,
            "--context: {} must be several blocks of {length}",
            self.context
        );
        let shape = [self.batch, self.context];
        let uniform = Distribution::Uniform(2.0, config.vocab_size() as f64);
        let batch = TokenBatch {
            ids: Tensor::<2, Int>::random(shape, uniform, &device),
            real: Tensor::<2, Int>::ones(shape, &device).bool(),
            block_length: length,
        };
        let mut model = config.init(0, &device);
        let mut optimizer =
            AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1).init();
        let mut seconds = Vec::new();
        for step in 0..self.steps + WARM_UP {
            let start = Instant::now();
            let loss = model.loss(&batch);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let (gradients, _) = clip_global_norm(&model, gradients, 1.0);
            model = optimizer.step(1e-4, model, gradients);
            device.sync()?;
            let all = start.elapsed().as_secs_f64();
            if step >= WARM_UP {
                seconds.push(all);
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds)
    }
}

/// Best of a few square products, in GFLOP/s.
fn matmul_gflops(device: &Device) -> Result<f64> {
    const N: usize = 1024;
    let a = Tensor::<2>::random([N, N], Distribution::Default, device);
    let mut best = f64::MAX;
    for _ in 0..8 {
        let start = Instant::now();
        let product = a.clone().matmul(a.clone());
        device.sync()?;
        drop(product);
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (N as f64).powi(3) / best / 1e9)
}

/// Peak resident memory of the process, where the system tells.
fn peak_mib() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? / 1024)
}
