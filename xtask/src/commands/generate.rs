//! `cargo xtask generate`

use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use block_transformer_device::DeviceName;
use block_transformer_generation::{Options, Piece, SAMPLE_TEMPERATURE, Sampling, TextGenerator};
use block_transformer_zoo::{Family, Precision};
use bytesize::ByteSize;

use super::open_checkpoint;
use crate::counts::positive;
use crate::device;

/// Arguments of `generate`.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint folder to read model and tokenizer from
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Text to continue; may be given several times, and may be empty
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "prompts_file"
    )]
    prompt: Vec<String>,
    /// File of more texts to continue, one a line; empty lines are skipped
    #[arg(long, value_name = "FILE")]
    prompts_file: Option<PathBuf>,
    /// Divides the logits: below 1 is safer, above 1 wilder, 0 is --greedy [default: 0.8]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw from this many of the most likely tokens only
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the fewest most likely tokens that together have this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// What the draws depend on; the same seed gives the same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Always take the most likely token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    greedy: bool,
    /// Tokens to write for each prompt, at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Text to stop before; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Write on when the model ends the document
    #[arg(long)]
    ignore_eos: bool,
    /// Prompts computed together, at most
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive())]
    batch: usize,
    /// Memory to use, at most: fewer prompts are computed together if need be (4GiB, 500MB)
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// How matrices are stored
    #[arg(long, value_name = "FORMAT", value_parser = device::precision(), default_value = "f32")]
    weights: Precision,
    /// Device that computes
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Writes the text to stdout, and how fast it came to stderr.
    pub fn run(self) -> Result<ExitCode> {
        let options = self.options();
        options.check()?;
        device::check(self.device, self.weights)?;
        let prompts = self.prompts()?;
        let device = device::open(self.device)?;
        let checkpoint = open_checkpoint(&self.checkpoint)?;
        let tokenizer = checkpoint.tokenizer()?;
        let model = checkpoint.load_model(&device)?.with_precision(self.weights);
        let generator = TextGenerator::new(&model, &checkpoint.config, &tokenizer, &device)
            .with_context(|| format!("--checkpoint {}", self.checkpoint.display()))?
            .with_room(
                self.batch,
                self.memory.map(|m| m.as_u64()).or_else(|| self.device.memory()),
            );
        let start = Instant::now();
        let mut out = Output::default();
        let mut tokens = 0;
        // one prompt streams; of several, each is printed when it and those before it are done
        let streaming = prompts.len() == 1;
        let (mut done, mut printed) = (vec![None; prompts.len()], 0);
        generator.generate_each(&prompts, &options, &self.stop, |row, piece| match piece {
            Piece::Text(text) if streaming => out.write(text),
            Piece::Text(_) => ControlFlow::Continue(()),
            Piece::End(completion) => {
                tokens += completion.tokens;
                if streaming {
                    return out.write("\n");
                }
                done[row] = Some(completion.text.clone());
                while let Some(text) = done.get_mut(printed).and_then(Option::take) {
                    let prompt = &prompts[printed];
                    printed += 1;
                    let header = format!("=== {printed} of {}: {prompt:?}", prompts.len());
                    out.write(&format!("{header}\n{text}\n"))?;
                }
                ControlFlow::Continue(())
            }
        })?;
        out.finish()?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{tokens} tokens in {seconds:.2} s, {:.1} tokens/s", tokens as f64 / seconds);
        Ok(ExitCode::SUCCESS)
    }

    fn options(&self) -> Options {
        let temperature = self.temperature.unwrap_or(SAMPLE_TEMPERATURE);
        let sampling = Sampling {
            temperature: if self.greedy { 0.0 } else { temperature },
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
        };
        let eos = if self.ignore_eos { None } else { Options::default().eos };
        Options { sampling, max_tokens: self.max_tokens, eos, ..Options::default() }
    }

    /// The prompts of the command line, then those of the file.
    fn prompts(&self) -> Result<Vec<String>> {
        let mut prompts = self.prompt.clone();
        if let Some(path) = &self.prompts_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--prompts-file {}", path.display()))?;
            prompts.extend(text.lines().filter(|line| !line.is_empty()).map(String::from));
            anyhow::ensure!(
                !prompts.is_empty(),
                "--prompts-file {}: no prompts in it; write one a line",
                path.display()
            );
        }
        Ok(prompts)
    }
}

/// Stdout, until nobody reads it any more (`generate | head`).
#[derive(Default)]
struct Output {
    error: Option<std::io::Error>,
}

impl Output {
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
