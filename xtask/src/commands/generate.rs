//! `cargo xtask generate`

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use block_transformer_device::DeviceName;
use block_transformer_files::write;
use block_transformer_generation::{
    GenerationError, Options, SAMPLE_TEMPERATURE, Sampling, Speculate, SpeculationCounts,
    TextGenerator,
};
use block_transformer_zoo::Family;
use bytesize::ByteSize;
use serde::Serialize;

use super::inputs::{of_checkpoint, open_checkpoint};
use super::ngrams;
use crate::counts::{self, positive};
use crate::{device, paths};

/// Arguments of `generate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Checkpoint folder with the model and its tokenizer
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Text to continue; can be empty, and can be given several times
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "prompts_file"
    )]
    prompt: Vec<String>,
    /// File with more texts to continue, one per line; empty lines are skipped
    #[arg(long, value_name = "FILE")]
    prompts_file: Option<PathBuf>,
    /// Sampling temperature: below 1 for more likely text, above 1 for more varied text, 0 for
    /// --greedy [default: 0.8]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Draw only from this many of the most likely tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw only from the smallest set of most likely tokens that together have this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Draw only from tokens with at least this part of the probability of the most likely one, from 0 to 1
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// Lower the logits of all tokens in the new text by this value, from -2 to 2
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f64,
    /// Lower the logit of a token by this value for each time that it is in the new text, from -2 to 2
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f64,
    /// Seed of the random draws; the same seed gives the same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Always choose the most likely token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    greedy: bool,
    /// Maximum number of new tokens per prompt
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// String that ends the text and is not printed; can be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Continue after the model has ended the document
    #[arg(long)]
    ignore_eos: bool,
    /// Maximum number of prompts decoded together
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive())]
    batch: usize,
    /// Maximum memory, such as 4GiB or 500MB; fewer prompts are decoded together if necessary
    #[arg(long, value_name = "SIZE", value_parser = counts::memory)]
    memory: Option<ByteSize>,
    /// Launch every kernel of a block on its own, where a GPU could replay them as one graph
    #[arg(long)]
    no_graph: bool,
    /// Tokens to guess from repetitions in the text and to verify together: `off`, `auto` for as many
    /// as pay, or the largest number per step. The text stays the same
    #[arg(long, value_name = "off|auto|N", default_value = "auto", value_parser = speculate)]
    speculate: Speculate,
    /// Guess from the n-grams of this file too, which `ngrams` wrote
    #[arg(long, value_name = "FILE")]
    ngrams: Option<PathBuf>,
    /// Write the speed and the counts of guesses to this file, as JSON
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    #[command(flatten)]
    storage: device::StorageFlags,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Prints the text to stdout and the speed to stderr.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let options = self.options();
        options.check().map_err(|error| self.explain(error))?;
        if let Some(path) = &self.stats {
            paths::output_file("--stats", path)?;
        }
        let memory = device::memory(self.memory, self.device)?;
        let prompts = self.prompts()?;
        let device = device::open(self.device)?;
        self.storage.check(self.device, &device)?;
        let guesses = self.speculate != Speculate::Off && self.device == DeviceName::Flex;
        anyhow::ensure!(
            self.ngrams.is_none() || guesses,
            "--ngrams: nothing is guessed with --speculate off and on devices other than flex; leave it out"
        );
        let precision = self.storage.precision();
        let checkpoint = open_checkpoint(&self.checkpoint)?;
        let tokenizer = checkpoint.tokenizer()?;
        let ngrams =
            self.ngrams.as_deref().map(|path| ngrams::read(path, &tokenizer)).transpose()?;
        let model = checkpoint
            .load_model(&device)
            .map_err(of_checkpoint)?
            .with_precision(precision)
            .prepared();
        let generator =
            TextGenerator::new(&model, tokenizer, &device).with_room(self.batch, memory);
        let mut generator =
            generator.with_cache(precision.cache()).with_speculation(self.speculate);
        if let Some(ngrams) = ngrams {
            generator = generator.with_ngrams(ngrams);
        }
        if self.no_graph {
            generator = generator.with_graphs(false);
        }
        let start = Instant::now();
        let mut out = WrittenText::default();
        // the text of a single prompt is streamed; several texts are printed in order, each as soon
        // as it and all texts before it are complete
        let streaming = prompts.len() == 1;
        let (mut texts, mut ended) =
            (vec![String::new(); prompts.len()], vec![false; prompts.len()]);
        let mut printed = 0;
        let completions = generator.generate(&prompts, &options, &self.stop, |index, event| {
            if streaming {
                let end = if event.finish.is_some() { "\n" } else { "" };
                return out.write(&format!("{}{end}", event.text));
            }
            texts[index].push_str(&event.text);
            ended[index] = event.finish.is_some();
            while ended.get(printed) == Some(&true) {
                let (prompt, text) = (&prompts[printed], std::mem::take(&mut texts[printed]));
                printed += 1;
                let header = format!("=== {printed} of {}: {prompt:?}", prompts.len());
                out.write(&format!("{header}\n{text}\n"))?;
            }
            ControlFlow::Continue(())
        });
        let completions = completions.map_err(|error| self.explain(error))?;
        out.finish()?;
        let seconds = start.elapsed().as_secs_f64();
        let tokens: usize = completions.all.iter().map(|completion| completion.tokens).sum();
        let stats = Stats {
            tokens,
            seconds,
            tokens_per_second: tokens as f64 / seconds,
            speculation: completions.speculation.map(Into::into),
        };
        note!("{stats}");
        if let Some(path) = &self.stats {
            let json = serde_json::to_string_pretty(&stats)? + "\n";
            write(path, json.as_bytes()).with_context(|| {
                format!("--stats {}: give a file in a folder that can be written", path.display())
            })?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Adds the option that caused an error.
    fn explain(&self, error: GenerationError) -> anyhow::Error {
        let option = match &error {
            GenerationError::Temperature(_) => "--temperature".into(),
            GenerationError::TopK => "--top-k (leave it out to draw from all tokens)".into(),
            GenerationError::TopP(_) => "--top-p".into(),
            GenerationError::MinP(_) => "--min-p".into(),
            GenerationError::Penalty { name, .. } => format!("--{}", name.replace('_', "-")),
            GenerationError::EmptyStop => "--stop".into(),
            GenerationError::MaxTokens(_) => "--max-tokens".into(),
            GenerationError::NGrams { .. } => "--ngrams".into(),
            GenerationError::Speculation => "--speculate (use `auto` or `off` here)".into(),
            GenerationError::Memory { .. } => "--memory, --max-tokens".into(),
            GenerationError::Vocabulary { .. } | GenerationError::NotFinite { .. } => {
                format!("--checkpoint {}", self.checkpoint.display())
            }
            _ => return error.into(),
        };
        anyhow::Error::new(error).context(option)
    }

    fn options(&self) -> Options {
        let temperature = self.temperature.unwrap_or(SAMPLE_TEMPERATURE);
        let sampling = Sampling {
            temperature: if self.greedy { 0.0 } else { temperature },
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
        };
        let eos = if self.ignore_eos { None } else { Options::default().eos };
        Options { sampling, max_tokens: self.max_tokens, eos, ..Options::default() }
    }

    /// The prompts from the command line, then those from the file.
    fn prompts(&self) -> Result<Vec<String>> {
        let mut prompts = self.prompt.clone();
        if let Some(path) = &self.prompts_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--prompts-file {}", path.display()))?;
            prompts.extend(text.lines().filter(|line| !line.is_empty()).map(String::from));
            anyhow::ensure!(
                !prompts.is_empty(),
                "--prompts-file {}: the file contains no prompts; write one per line",
                path.display()
            );
        }
        Ok(prompts)
    }
}

/// The value of `--speculate`.
pub(super) fn speculate(text: &str) -> Result<Speculate, String> {
    match text {
        "off" => Ok(Speculate::Off),
        "auto" => Ok(Speculate::Auto),
        _ => match text.parse() {
            Ok(0) | Err(_) => Err("give `off`, `auto` or a number of tokens from 1 on".into()),
            Ok(tokens) => Ok(Speculate::Tokens(tokens)),
        },
    }
}

/// The speed of the command.
#[derive(Serialize)]
struct Stats {
    tokens: usize,
    seconds: f64,
    tokens_per_second: f64,
    speculation: Option<Speculated>,
}

/// The counts of guesses.
#[derive(Serialize)]
struct Speculated {
    guessed: usize,
    right: usize,
    acceptance: f64,
    passes: usize,
    tokens_per_pass: f64,
}

impl From<SpeculationCounts> for Speculated {
    fn from(counts: SpeculationCounts) -> Self {
        let SpeculationCounts { guessed, right, passes, .. } = counts;
        let (acceptance, tokens_per_pass) = (counts.acceptance(), counts.tokens_per_pass());
        Self { guessed, right, acceptance, passes, tokens_per_pass }
    }
}

impl Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tokens, seconds, tokens_per_second, speculation } = self;
        write!(f, "{tokens} tokens in {seconds:.2} s, {tokens_per_second:.1} tokens/s")?;
        let Some(Speculated { guessed, right, tokens_per_pass, .. }) = speculation else {
            return Ok(());
        };
        if *guessed > 0 {
            write!(f, "; {right} of {guessed} guessed tokens were right, ")?;
            write!(f, "{tokens_per_pass:.2} tokens per pass")?;
        }
        Ok(())
    }
}

/// Stdout. When its reader has closed the pipe (`generate | head`), generation ends without an
/// error.
#[derive(Default)]
struct WrittenText {
    error: Option<std::io::Error>,
}

impl WrittenText {
    fn write(&mut self, text: &str) -> ControlFlow<()> {
        if self.error.is_none() {
            let mut out = std::io::stdout().lock();
            self.error = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
        }
        if self.error.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn finish(self) -> Result<()> {
        match self.error {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("stdout"),
            _ => Ok(()),
        }
    }
}
