//! `cargo xtask train`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, ensure};
use block_transformer_checkpoint::RunFolder;
use block_transformer_datasets::{CorpusRequest, TokenizerChoice};
use block_transformer_device::DeviceName;
use block_transformer_text::Tokenizer;
use block_transformer_training::{
    INTERRUPTED, Lines, Outcome, Reporter, TrainConfig, check_folder, on_interrupt,
};
use burn::tensor::Device;
use serde::Serialize;

use super::prepare::{
    CORPUS_NEEDED, TokenizerArgs, default_corpus, is_prepared, prepared, summary,
};
#[cfg(feature = "tui")]
use crate::dashboard::Dashboard;
use crate::device;

/// Tokens of the sample written at the end.
const SAMPLE_TOKENS: usize = 160;

/// Arguments of `train`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// TOML with any of the keys that --print-config prints; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration in effect, and do nothing
    #[arg(long)]
    print_config: bool,
    /// Go on with the run in --out, with its own configuration, from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Print lines on a terminal too, instead of the dashboard
    #[arg(long)]
    plain: bool,
    /// Folder of prepared corpora and downloads
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
}

/// Flags that are keys of the configuration; those not given are left out of it.
#[derive(clap::Args, Serialize)]
struct Flags {
    /// Model and its hyper-parameters; `cargo xtask presets` lists them [default: small-block]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<String>,
    /// Recipe, text file, .jsonl file, folder, Megatron .idx, or prepared folder [default: dependencies]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    corpus: Option<String>,
    /// Folder of the run [default: runs/PRESET]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
    /// Backend that computes [default: flex]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// Seed of the first weights and of the order of windows [default: 0]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// Optimizer steps
    #[arg(long, value_name = "N", help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    /// Sequences a micro-batch
    #[arg(long, value_name = "B", help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<usize>,
    /// Micro-batches a step, whose gradients are averaged [default: 1]
    #[arg(long, value_name = "K", help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    accumulate: Option<usize>,
    /// Tokens a sequence
    #[arg(long, value_name = "T", help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<usize>,
    /// Peak learning rate
    #[arg(long, help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lr: Option<f64>,
    /// Learning rate at the end, as a share of the peak [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lr_end: Option<f64>,
    /// Steps of linear warm-up
    #[arg(long, value_name = "N", help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup: Option<u64>,
    /// AdamW's decay of the first moment [default: 0.9]
    #[arg(long, help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta1: Option<f64>,
    /// AdamW's decay of the second moment [default: 0.95]
    #[arg(long, help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    beta2: Option<f64>,
    /// AdamW's epsilon [default: 1e-8]
    #[arg(long, help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    /// AdamW's weight decay [default: 0.1]
    #[arg(long, help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
    /// Largest global norm of a gradient [default: 1]
    #[arg(long, value_name = "NORM", help_heading = "Optimization")]
    #[serde(skip_serializing_if = "Option::is_none")]
    clip: Option<f64>,
    /// Steps between validations
    #[arg(long, value_name = "N", help_heading = "Output")]
    #[serde(skip_serializing_if = "Option::is_none")]
    validate_every: Option<u64>,
    /// Validation windows, spread evenly over the validation split [default: 32]
    #[arg(long, value_name = "N", help_heading = "Output")]
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_windows: Option<u64>,
    /// Steps between checkpoints; the best by validation loss is written besides
    #[arg(long, value_name = "N", help_heading = "Output")]
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_every: Option<u64>,
    /// Newest checkpoints kept besides the best [default: 3]
    #[arg(long, value_name = "K", help_heading = "Output")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<usize>,
    /// Steps between printed lines
    #[arg(long, value_name = "N", help_heading = "Output")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_every: Option<u64>,
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer: Option<TokenizerChoice>,
}

impl Args {
    /// Trains; exits with 130 when it was interrupted.
    pub fn run(self) -> Result<ExitCode> {
        let (resume, data, print) = (self.resume, self.data.clone(), self.print_config);
        let plain = self.plain;
        let own_tokenizer = self.tokenizer.choice().is_some();
        let config = self.effective()?;
        if print {
            say!("{}", config.to_toml().trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        config.check()?;
        ensure!(!config.corpus.is_empty(), CORPUS_NEEDED);
        check_folder(&config, resume)?;
        let device = device::open(config.device.parse::<DeviceName>().context("--device")?)?;
        ensure!(
            !(own_tokenizer && is_prepared(&config.corpus)),
            "--corpus {}: a prepared corpus has its tokenizer; leave out the flag that chooses one",
            config.corpus
        );
        let corpus = prepared(&CorpusRequest {
            corpus: &config.corpus,
            tokenizer: &config.tokenizer,
            data: &data,
            out: None,
        })?;
        say!("{}", summary(&corpus));
        let stop = on_interrupt()?;
        let outcome = {
            let mut reporter = reporter(&config, plain, &stop);
            block_transformer_training::run(
                &config,
                &corpus,
                resume,
                &device,
                &stop,
                reporter.as_mut(),
            )?
        };
        report(&config, &outcome);
        if outcome.interrupted {
            say!("interrupted after step {}; --resume goes on from there", outcome.step);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        write_sample(&config, &outcome, &corpus.tokenizer()?, &device)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Preset, file, flags; of a resumed run its own configuration and flags.
    fn effective(mut self) -> Result<TrainConfig> {
        self.flags.tokenizer = self.tokenizer.choice();
        let mut config = TrainConfig::layered(self.config.as_deref(), &self.flags)?;
        let begun = RunFolder::new(&config.out).config_path();
        if self.resume && self.config.is_none() && begun.exists() {
            let out = config.out;
            config = TrainConfig { out, ..TrainConfig::read(&begun)?.with(&self.flags)? };
        }
        if config.corpus.is_empty() {
            config.corpus = default_corpus().unwrap_or_default();
        }
        Ok(config)
    }
}

/// The dashboard on a terminal, lines elsewhere.
fn reporter(config: &TrainConfig, plain: bool, stop: &Arc<AtomicBool>) -> Box<dyn Reporter> {
    #[cfg(feature = "tui")]
    if !plain
        && let Some(dashboard) = Dashboard::open(config.preset.clone(), config.steps, stop.clone())
    {
        return Box::new(dashboard);
    }
    let _ = (config, plain, stop);
    Box::new(Lines(std::io::stdout()))
}

fn report(config: &TrainConfig, outcome: &Outcome) {
    let number = |loss: Option<f64>| loss.map_or_else(|| "-".into(), |loss| format!("{loss:.4}"));
    say!(
        "training loss {} (mean of the last 20 steps), validation loss {}, token frequencies alone {:.4}",
        number(outcome.train_loss),
        number(outcome.validation_loss),
        outcome.frequency_loss,
    );
    if let Some((step, loss)) = outcome.best {
        say!("best validation loss {loss:.4} after step {step}");
    }
    if let Some(rate) = outcome.tokens_per_second {
        say!("{rate:.0} tokens/s, the first 3 steps not counted");
    }
    say!("checkpoint {}", outcome.checkpoint.display());
    let file = |name: &str| config.out.join(name).display().to_string();
    say!("loss curve {} and {}", file("loss.svg"), file("loss.png"));
}

/// Prints text the trained model writes, and keeps it in `sample.txt`.
fn write_sample(
    config: &TrainConfig,
    outcome: &Outcome,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<()> {
    let (prompt, seed) = ("", config.seed);
    let text = block_transformer_generation::sample_text(
        &outcome.model,
        tokenizer.clone(),
        prompt,
        SAMPLE_TOKENS,
        seed,
        device,
    )?;
    say!("sample:\n{}", text.trim_end());
    let path: &Path = &config.out.join("sample.txt");
    std::fs::write(path, text + "\n").map_err(|e| anyhow!("{}: {e}", path.display()))
}
