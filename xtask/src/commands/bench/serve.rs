//! `bench serve`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Error, Result, anyhow, ensure};
use block_transformer_bench::{
    BenchError, Bounds, Candidate, Endpoint, Load, LoadReport, LoadRow, LoadTest, Paired,
    ServedCard, draw_load, number, paired_table,
};
use block_transformer_cost::Lengths;
use block_transformer_device::DeviceName;
use block_transformer_text::Tokenizer;
use block_transformer_zoo::FamilyConfig;

use super::output::{command_line, create};
use super::own_server::{OwnServer, Served};
use crate::commands::inputs::{open_checkpoint, presets};
use crate::commands::serve::KEY;
use crate::counts::{count, positive};
use crate::{device, paths, units};

/// Sequences of the closed loops if neither --streams nor --rate is given.
const STREAMS: [usize; 4] = [1, 4, 16, 64];
/// Sequences beside the engine alone if --streams is not given.
const BESIDE: usize = 64;
/// Ids of prompts to a server of which only the address is known; every tokenizer has them.
const FEW_IDS: usize = 256;

/// Arguments of `bench serve`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A running server, such as http://127.0.0.1:8000 [default: one in this process]
    #[arg(long, value_name = "URL", conflicts_with_all = ["preset", "checkpoint", "beside_engine"])]
    url: Option<String>,
    /// Models of --url, measured in turn [default: all that it serves]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..", requires = "url")]
    model: Vec<String>,
    /// Presets with random weights, measured in turn [default without --checkpoint and --url:
    /// block-170m,vanilla-160m]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    preset: Vec<String>,
    /// More models to measure: checkpoint folders
    #[arg(long, value_name = "DIR")]
    checkpoint: Vec<PathBuf>,
    /// A `tokenizer.json` for the presets [default: bytes and pairs of bytes]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Open loop: mean numbers of requests per second, which arrive independently of the answers
    #[arg(long, value_delimiter = ',', value_name = "N,..", value_parser = rate)]
    rate: Vec<f64>,
    /// Closed loop: numbers of clients that send one request after the other [default without --rate: 1,4,16,64]
    #[arg(long, value_delimiter = ',', value_name = "N,..", value_parser = count())]
    streams: Vec<usize>,
    /// Tokens of prompt and continuation
    #[arg(long, value_name = "PROMPT:NEW", default_value = "128:128")]
    lengths: Lengths,
    /// Time of a measurement in which requests are sent; those that were sent are waited for
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    seconds: units::Stated,
    /// The most requests of a measurement
    #[arg(long, value_name = "N", default_value = "10000", value_parser = positive())]
    requests: usize,
    /// Number of times that everything is measured [default: 1; with --beside-engine: 3]
    #[arg(long, value_name = "N", value_parser = positive())]
    rounds: Option<usize>,
    /// Counts the answers per second that keep these times
    #[arg(long, value_name = "ttft=TIME,itl=TIME", value_parser = bounds)]
    goodput: Option<Bounds>,
    /// Compare with the engine without HTTP: the same number of sequences at once, both sides in turn
    #[arg(long, conflicts_with_all = ["rate", "goodput"])]
    beside_engine: bool,
    #[command(flatten)]
    storage: device::StorageFlags,
    /// Folder for results.json, results.csv, summary.md and plots
    #[arg(long, value_name = "DIR", conflicts_with = "beside_engine")]
    out: Option<PathBuf>,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Measures everything in turn, and prints a table.
    pub(super) fn run(self) -> Result<ExitCode> {
        match &self.url {
            Some(url) => self.remote(url),
            None => self.own(),
        }
    }

    /// Measures a running server.
    fn remote(&self, url: &str) -> Result<ExitCode> {
        let endpoint = Endpoint::new(url, std::env::var(KEY).ok()).context("--url")?;
        let mut cards = endpoint.models().context("--url")?;
        for name in &self.model {
            let known = || cards.iter().map(|card| card.id.as_str()).collect::<Vec<_>>().join(", ");
            let is_known = cards.iter().any(|card| card.id == *name);
            ensure!(is_known, "--model {name}: {url} has no such model; it has {}", known());
        }
        if !self.model.is_empty() {
            cards.retain(|card| self.model.contains(&card.id));
        }
        let tests = cards.into_iter().map(|card| (self.test(&endpoint, &card, FEW_IDS), card));
        self.measure(url.into(), &tests.collect::<Vec<_>>())
    }

    /// Starts a server in this process and measures it.
    fn own(&self) -> Result<ExitCode> {
        let candidates = self.candidates()?;
        let device = device::open(self.device)?;
        let precision = self.storage.precision();
        self.storage.check(self.device, &device)?;
        let most = self.loads().into_iter().filter_map(|load| match load {
            Load::Streams(streams) => Some(streams),
            Load::Rate(_) => None,
        });
        // an open loop gets as many slots as a server has by default
        let slots = most.max();
        let (cache, tokens) = (precision.cache(), self.lengths.total());
        let mut served = Vec::new();
        for (candidate, tokenizer) in &candidates {
            let model = candidate.prepared(precision, &device).map_err(with_flags)?;
            served.push(Served {
                name: candidate.name.clone(),
                vocab: tokenizer.vocab_size(),
                model,
                tokenizer: tokenizer.clone(),
            });
        }
        // each model gets its part
        let memory = self.device.memory().map(|bytes| bytes / served.len() as u64);
        let server = OwnServer::start(&served, &device, cache, tokens, slots, memory)?;
        let endpoint = Endpoint::new(&server.url(), None)?;
        let mut tests = Vec::new();
        for (card, served) in endpoint.models()?.into_iter().zip(&served) {
            tests.push((self.test(&endpoint, &card, served.vocab), card));
        }
        let code = if self.beside_engine {
            self.beside(&tests, &served, &device)
        } else {
            self.measure(
                format!("{}, weights {}, caches {cache}", self.device, precision.matrices()),
                &tests,
            )
        };
        let ended = server.stop();
        code.and_then(|code| ended.map(|()| code))
    }

    fn measure(&self, place: String, tests: &[(LoadTest, ServedCard)]) -> Result<ExitCode> {
        create(self.out.as_deref())?;
        let rounds = self.rounds.unwrap_or(1);
        let progress = &mut |round: usize, row: &LoadRow| {
            note!(
                "round {round} of {rounds}: {}, {}: {} tokens/s, the first token after {} ms (median)",
                row.model,
                row.load,
                number(row.tokens_per_second),
                number(1000.0 * row.ttft.p50),
            );
        };
        let report =
            LoadReport::measure(place, tests, &self.loads(), rounds, self.goodput, progress)?;
        say!("{}\n\n{}", report.table(), report.legend());
        for row in report.rows.iter().filter(|row| row.failed > 0) {
            let error = row.error.as_deref().unwrap_or_default();
            note!(
                "warning: {}, {}: {} requests failed; the first: {error}",
                row.model,
                row.load,
                row.failed
            );
        }
        for line in report.ratios() {
            say!("{line}");
        }
        if let Some(dir) = &self.out {
            report.write(dir, &command_line())?;
            let mut files = String::from("results.json, results.csv, summary.md");
            for name in draw_load(&report.rows, dir)? {
                files += &format!(", {name}.svg, {name}.png");
            }
            say!("written to {}: {files}", dir.display());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Compares HTTP with the engine alone.
    fn beside(
        &self,
        tests: &[(LoadTest, ServedCard)],
        served: &[Served],
        device: &burn::tensor::Device,
    ) -> Result<ExitCode> {
        let rounds = self.rounds.unwrap_or(3);
        let cache = self.storage.precision().cache();
        let mut rows = Vec::new();
        for load in self.loads() {
            let Load::Streams(batch) = load else { continue };
            for ((test, card), served) in tests.iter().zip(served) {
                let model = (&served.model, served.vocab);
                let row = Paired::measure(
                    test,
                    model,
                    (cache, device),
                    batch,
                    rounds,
                    &mut |round, side| {
                        note!(
                            "round {round} of {rounds}: {}, {load}: {} tokens/s over HTTP, {} by the engine alone",
                            card.id,
                            number(side.http),
                            number(side.engine)
                        );
                    },
                )?;
                rows.push(row);
            }
        }
        say!(
            "{}\n\nnew tokens per second of as many sequences at once, prompts included: medians of {rounds} rounds, in \
             which both sides were measured in turn, with the same model in the same process. Ratio: HTTP over engine.",
            paired_table(&rows)
        );
        Ok(ExitCode::SUCCESS)
    }

    fn loads(&self) -> Vec<Load> {
        let streams = match (&*self.streams, self.beside_engine, &*self.rate) {
            ([], true, _) => &[BESIDE][..],
            ([], false, []) => &STREAMS,
            (given, ..) => given,
        };
        let streams = streams.iter().map(|&streams| Load::Streams(streams));
        self.rate.iter().map(|&rate| Load::Rate(rate)).chain(streams).collect()
    }

    fn test(&self, endpoint: &Endpoint, card: &ServedCard, vocab_size: usize) -> LoadTest {
        LoadTest {
            endpoint: endpoint.clone(),
            model: card.id.clone(),
            vocab_size,
            lengths: self.lengths,
            seconds: self.seconds.value,
            requests: self.requests,
            seed: 0,
        }
    }

    /// The models with their tokenizers.
    fn candidates(&self) -> Result<Vec<(Candidate, Tokenizer)>> {
        let mut names = self.preset.clone();
        if names.is_empty() && self.checkpoint.is_empty() {
            names = vec!["block-170m".into(), "vanilla-160m".into()];
        }
        let given = match &self.tokenizer {
            None => None,
            Some(path) => {
                paths::input_file("--tokenizer", path, "give a tokenizer.json")?;
                Some(Tokenizer::load(path).context("--tokenizer")?)
            }
        };
        let mut candidates = Vec::new();
        for preset in presets(&names)? {
            let tokenizer = match &given {
                Some(tokenizer) => tokenizer.clone(),
                None => Tokenizer::byte_pairs(preset.model.vocab_size())
                    .with_context(|| format!("--preset {}: give a --tokenizer", preset.name))?,
            };
            candidates.push((Candidate::preset(preset), tokenizer));
        }
        for folder in &self.checkpoint {
            let checkpoint = open_checkpoint(folder)?;
            let tokenizer = checkpoint.tokenizer().context("--checkpoint")?;
            // as `serve` names it, unless another model has this name
            let short = paths::folder_name(folder);
            let is_taken = candidates.iter().any(|(other, _): &(Candidate, _)| other.name == short);
            let name = if is_taken { folder.display().to_string() } else { short };
            candidates.push((Candidate::checkpoint(&name, checkpoint), tokenizer));
        }
        Ok(candidates)
    }
}

/// Parses a number of requests per second.
fn rate(text: &str) -> Result<f64, String> {
    let rate =
        text.parse().ok().filter(|rate: &f64| rate.is_finite() && (1e-3..=1e6).contains(rate));
    rate.ok_or_else(|| {
        "must be a number of requests per second from 0.001 to 1000000, such as 0.5".into()
    })
}

/// Parses the bounds of the goodput.
fn bounds(text: &str) -> Result<Bounds, String> {
    let example = "must be bounds such as ttft=500ms,itl=50ms";
    let time = |name: &str| {
        let value = text.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| units::duration(value).ok()).map(|time| time.value)
    };
    match (time("ttft"), time("itl"), text.split(',').count()) {
        (Some(ttft), Some(itl), 2) => Ok(Bounds { ttft, itl }),
        _ => Err(example.into()),
    }
}

/// Names the flag that caused the error.
fn with_flags(error: BenchError) -> Error {
    match error {
        BenchError::Checkpoint(_) => Error::from(error).context("--checkpoint"),
        _ => anyhow!(error),
    }
}
