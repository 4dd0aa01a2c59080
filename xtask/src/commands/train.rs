//! `cargo xtask train`

mod curve;
#[cfg(feature = "tui")]
mod dashboard;
mod data;
mod evaluation;
mod flags;
mod interrupt;
mod lines;
mod origin;

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use block_transformer_checkpoint::RunFolder;
use block_transformer_collectives::{Alone, Collective, check_same, rank_0_first};
use block_transformer_datasets::{
    CorpusRequest, Mixture, ReadOptions, SHARD_TOKENS, Share, TokenizerChoice,
};
use block_transformer_device::{DeviceName, instruction_set};
use block_transformer_generation::{GenerationError, sample_text};
use block_transformer_text::Tokenizer;
use block_transformer_training::{
    Origin as Given, Outcome, TrainConfig, TrainError, TrainingRun, check_folder, check_formats,
    run_model,
};
use block_transformer_zoo::FamilyConfig;
use burn::tensor::Device;
use burn::train::Interrupter;

use super::inputs::warn_of_skipped;
use super::memory::{Peak, announce, peak};
use super::prepare::{
    CORPUS_NEEDED, TokenizerArgs, check_tokenizer, default_corpus, is_prepared, prepared,
};
use crate::output::is_silent;
use crate::{device, job, paths};
use data::Data;
use evaluation::Evaluations;
use flags::{Flags, Origin};
pub(super) use interrupt::Signals;
pub(super) use lines::Lines;

/// Tokens of the sample that is generated at the end.
const SAMPLE_TOKENS: usize = 160;

/// Arguments of `train`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) flags: Flags,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// TOML file with any of the keys that --print-config prints, the `model` table included; flags override it. The
    /// tokenizer decides the model's `vocab_size`, whatever the file says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration and exit
    #[arg(long)]
    print_config: bool,
    /// Continue the run in --out, with its own configuration, from its newest checkpoint
    #[arg(long)]
    resume: bool,
    /// Continue the run in --out if there is one, otherwise begin it: for jobs that a queue starts again
    #[arg(long, conflicts_with = "resume")]
    resume_or_start: bool,
    /// Peak of a device in TFLOP/s, or `measure`; with it, MFU is reported [default: the data sheet's of an H100 or
    /// A100 (SXM); otherwise there is no MFU]
    #[arg(long, value_name = "TFLOPS")]
    peak_tflops: Option<Peak>,
    /// Print plain lines instead of the dashboard, even on a terminal
    #[arg(long)]
    plain: bool,
    /// Prepared folder with its weight, such as books=0.7, in a mixture in place of --corpus; give it once per
    /// folder. Or: folder of prepared corpora and downloads [default: data]
    #[arg(long, value_name = "DIR=WEIGHT")]
    data: Vec<String>,
}

impl Args {
    /// Trains. The exit code is 130 after Ctrl-C, and 75 after a signal of a queue.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let print = self.print_config;
        let ranks = if print { Arc::new(Alone) } else { job::join()? };
        let leads = ranks.rank() == 0;
        let (plain, given_peak) = (self.plain, self.peak_tflops);
        let own_tokenizer = self.tokenizer.choice().is_some();
        let Data { cache, shares } = Data::parse(&self.data)?;
        let (mut config, origin, resume) = self.effective(shares)?;
        config.processes = ranks.size();
        check_beginning(&*ranks, &config, resume)?;
        let given = if resume {
            None
        } else {
            Given::open(&config).map_err(|error| origin.reword(error))?
        };
        let in_flags = |error| origin.reword(error);
        if print {
            say!("{}", config.to_toml()?.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        config.check().map_err(in_flags)?;
        if leads {
            paths::output_folder(&origin.of("out"), &config.out)?;
            check_folder(&config, resume).map_err(in_flags)?;
        }
        // with the smallest vocabulary, because that of the tokenizer is not known yet
        let smallest = config.model.clone().with_vocab_size(1);
        config.check_memory(&smallest).map_err(|error| origin.of_memory(error, &config))?;
        ensure!(!(config.corpus.is_empty() && config.mixture.is_empty()), CORPUS_NEEDED);
        evaluation::choices(&config, &origin)?;
        let devices = config.all_devices().iter().map(|&name| device::open(name));
        let devices = devices.collect::<Result<Vec<Device>>>()?;
        check_formats(&config, devices.iter()).map_err(in_flags)?;
        let (device, others) = devices.split_first().context("no device")?;
        let is_prepared = !config.mixture.is_empty() || is_prepared(&config.corpus);
        ensure!(
            !(own_tokenizer && is_prepared),
            "{}: a prepared corpus has its tokenizer; leave out the flag that chooses one",
            data::shown(&config)
        );
        // a run that began with given weights has their tokenizer in its checkpoints
        let saved = if resume && !config.from.is_empty() { saved_tokenizer(&config) } else { None };
        let tokenizer = saved.as_ref().unwrap_or(&config.tokenizer);
        if !is_prepared {
            check_tokenizer(&origin.of("tokenizer"), Some(tokenizer))?;
            paths::cache_folder("--data", &cache)?;
        }
        // rank 0 prepares the corpus for all
        let corpus = rank_0_first(&*ranks, || -> Result<Mixture> {
            if !config.mixture.is_empty() {
                return data::open(&config.mixture, &origin.of("mixture"));
            }
            Ok(Mixture::from(&prepared(&CorpusRequest {
                corpus: std::slice::from_ref(&config.corpus),
                options: &ReadOptions::default(),
                shard_tokens: SHARD_TOKENS,
                tokenizer,
                data: &cache,
                out: None,
            })?))
        })?;
        data::say_summary(&corpus);
        let tokenizer = corpus.first().tokenizer()?;
        let model = run_model(&config, &tokenizer).map_err(in_flags)?;
        config.check_memory(&model).map_err(|error| origin.of_memory(error, &config))?;
        if let Some(table) = origin.table_of_model(&config)
            && model.vocab_size() != config.model.vocab_size()
        {
            say!(
                "{table}: vocab_size {} does not apply: the tokenizer has {} ids, so the model has {}",
                config.model.vocab_size(),
                tokenizer.vocab_size(),
                model.vocab_size()
            );
        }
        let evaluations = Evaluations::load(&config, &origin, &tokenizer)?;
        let run =
            TrainingRun::open_on(&config, corpus.clone(), resume, device, others, ranks.clone());
        let run = run.map_err(in_flags)?;
        let run = match evaluations {
            Some(evaluations) => evaluations.of(run),
            None => run,
        };
        announce(&run, &config);
        if let Some(given) = &given {
            origin::announce(given, &config);
        }
        let run = run.peak(peak(&config, given_peak, device)?);
        warn_of_skipped(run.skipped().iter());
        match (resume, run.step()) {
            (false, _) => {}
            (true, 0) => say!("the run has no checkpoint yet: starting at its first step"),
            (true, step) => say!("resuming after step {step} of {}", config.steps),
        }
        let signals = Signals::listen()?;
        let interrupter = signals.interrupter.clone();
        let outcome = launch(run, interrupter, plain || !leads).map_err(in_flags)?;
        if leads {
            report(&config, &corpus, &outcome)?;
        }
        if outcome.interrupted {
            say!("interrupted after step {}; --resume continues from there", outcome.step);
            return Ok(ExitCode::from(signals.code(&*ranks)?));
        }
        if leads {
            write_sample(&config, &outcome, &tokenizer, device)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Whether the command continues a run.
    pub(super) fn is_resumed(&self) -> bool {
        let begun = || self.flags.out.as_deref().is_some_and(|out| RunFolder::new(out).is_used());
        self.resume || self.resume_or_start && begun()
    }

    /// The configuration from preset, file and flags; for a resumed run, from the file of the run
    /// and flags. With it comes whether the run is resumed.
    fn effective(mut self, shares: Vec<Share>) -> Result<(TrainConfig, Origin, bool)> {
        self.flags.tokenizer = self.tokenizer.choice();
        self.flags.settle_data(shares)?;
        self.flags.settle_devices();
        if !self.is_resumed() {
            origin::settle(&mut self.flags, self.config.as_deref())?;
        }
        if let Some(path) = &self.config {
            paths::input_file("--config", path, "give a TOML file; --print-config prints one")?;
        }
        let mut origin = Origin::new(&self.flags, self.config.as_deref())?;
        let layered = TrainConfig::layered(self.config.as_deref(), &self.flags);
        let mut config = layered.map_err(|error| origin.reword(error))?;
        let folder = RunFolder::new(&config.out);
        // a folder without configuration and checkpoints is what a kill in the first moments leaves
        let resume = self.resume || self.resume_or_start && folder.is_used();
        let begun = folder.config_path();
        if resume && self.config.is_none() && begun.exists() {
            origin = Origin::new(&self.flags, Some(&begun))?;
            origin.is_resumed = true;
            let begun = TrainConfig::read(&begun).and_then(|begun| begun.with(&self.flags));
            config =
                TrainConfig { out: config.out, ..begun.map_err(|error| origin.reword(error))? };
        }
        if config.corpus.is_empty() && config.mixture.is_empty() {
            config.corpus = default_corpus().unwrap_or_default();
        }
        Ok((config, origin, resume))
    }
}

/// Checks that all ranks of a job begin alike, before any of them writes a file.
fn check_beginning(ranks: &dyn Collective, config: &TrainConfig, resume: bool) -> Result<()> {
    let kinds: Vec<&str> = config.all_devices().iter().map(|device| device.name()).collect();
    let devices = format!("{} with the instructions {}", kinds.join(", "), instruction_set()?);
    // the device of each rank may have a number of its own
    let (device, unnamed) = (DeviceName::default(), Vec::new());
    let keys = serde_json::to_value(TrainConfig { device, devices: unnamed, ..config.clone() })?;
    let keys = keys.as_object().into_iter().flatten();
    let keys = keys.map(|(key, value)| (&**key, value.to_string()));
    let seen = if RunFolder::new(&config.out).is_used() { "a run" } else { "no run" };
    let begun = [
        ("the version", env!("CARGO_PKG_VERSION").to_string()),
        ("the devices", devices),
        ("the run in --out, a folder that all ranks must see", seen.into()),
        ("--resume", resume.to_string()),
    ];
    Ok(check_same(ranks, &begun.into_iter().chain(keys).collect::<Vec<_>>())?)
}

/// The tokenizer in the newest checkpoint of a run.
fn saved_tokenizer(config: &TrainConfig) -> Option<TokenizerChoice> {
    let newest = RunFolder::new(&config.out).checkpoints().pop()?;
    let path = newest.join("tokenizer.json");
    match config.tokenizer {
        TokenizerChoice::File(_) => path.exists().then_some(TokenizerChoice::File(path)),
        _ => None,
    }
}

/// Trains with the dashboard on a terminal, with plain lines elsewhere.
fn launch(run: TrainingRun, interrupter: Interrupter, plain: bool) -> Result<Outcome, TrainError> {
    #[cfg(feature = "tui")]
    if !plain && dashboard::is_possible() {
        return dashboard::launch(run, interrupter);
    }
    let _ = plain;
    let mut lines = Lines(stdout());
    let run = run.observe(move |event| {
        if !is_silent() {
            lines.print(event);
        }
    });
    run.launch(|training| training.with_interrupter(interrupter))
}

/// Prints the result of the run and draws its loss curve.
fn report(config: &TrainConfig, corpus: &Mixture, outcome: &Outcome) -> Result<()> {
    let frequency_loss = data::frequency_loss(corpus);
    let number = |loss: Option<f64>| loss.map_or_else(|| "-".into(), |loss| format!("{loss:.4}"));
    say!(
        "training loss {} (mean of the last 20 steps), validation loss {}, token frequencies alone {:.4}",
        number(outcome.train_loss),
        number(outcome.validation_loss),
        frequency_loss,
    );
    if let Some((step, loss)) = outcome.best {
        say!("best validation loss {loss:.4} after step {step}");
    }
    if outcome.skipped_steps > 0 {
        let reason = "because their loss or gradient norm was not finite";
        say!("{} steps were skipped, {reason}", outcome.skipped_steps);
    }
    if let Some(rate) = outcome.tokens_per_second {
        say!("{rate:.0} tokens/s, the first 3 steps not counted");
    }
    say!("checkpoint {}", outcome.checkpoint.display());
    let [svg, png] = ["loss.svg", "loss.png"].map(|name| config.out.join(name));
    let names: Vec<&str> = corpus.infos().iter().map(|info| &*info.name).collect();
    let title = format!("{} on {}", config.preset, names.join(" + "));
    let plot = curve::plot(&title, &outcome.metrics, frequency_loss);
    plot.write(&svg)?;
    plot.write(&png)?;
    say!("loss curve {} and {}", svg.display(), png.display());
    Ok(())
}

/// Prints a text that the trained model generates, and writes it to `sample.txt`.
fn write_sample(
    config: &TrainConfig,
    outcome: &Outcome,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<()> {
    let (model, tokenizer) = (&outcome.model, tokenizer.clone());
    let text = sample_text(model, tokenizer, "", SAMPLE_TOKENS, config.seed, device);
    let text = text.map_err(|error| match error {
        GenerationError::NotFinite { .. } => anyhow!(
            "{}: the training diverged: the logits of the trained model are not finite; begin another \
             run with a lower learning rate (--lr) or more warm-up steps (--warmup)",
            config.out.display()
        ),
        error => error.into(),
    })?;
    say!("sample:\n{}", text.trim_end());
    Ok(block_transformer_files::write(&config.out.join("sample.txt"), (text + "\n").as_bytes())?)
}
