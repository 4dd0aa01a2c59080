//! Sends random requests to an engine of each family for a given time; requests arrive, finish and
//! are cancelled at any time. Every token is compared with the token that the request gets when it
//! is decoded alone, and the memory of the process must not grow.
//!
//! ```text
//! cargo build -p block-transformer-cli -p block-transformer-generation --example soak
//! target/debug/examples/soak --minutes 30
//! ```
//!
//! With `-p block-transformer-cli`, burn is built with the features that the rest of the workspace
//! uses, so it is not built a second time.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use block_transformer_family::FamilyConfig;
use block_transformer_generation::{Engine, Event, Finish, Limits, Options, Sampling, SequenceId};
use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Number of different requests.
const REQUESTS: usize = 120;
/// Number of sequences. With two prefix vectors each, they have far fewer rows than the number from
/// which bits depend on the batch.
const SEQUENCES: usize = 20;
const LIMITS: Limits = Limits { max_sequences: SEQUENCES, max_tokens: 320 };
/// Kilobytes by which resident memory may grow after the warm-up.
const SLACK: u64 = 8 << 10;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct Request {
    prompt: Vec<u32>,
    options: Options,
    answer: Vec<u32>,
}

/// An engine with its requests.
struct Soak {
    name: &'static str,
    engine: Engine,
    requests: Vec<Request>,
    /// The request of each unfinished sequence, and the number of its tokens so far.
    live: HashMap<SequenceId, (usize, usize)>,
    random: ChaCha8Rng,
    tokens: u64,
    finished: u64,
    cancelled: u64,
}

impl Soak {
    fn new(name: &'static str, device: &Device) -> Fallible<Self> {
        let config = &block_transformer_zoo::preset(name)?.model;
        let model = config.init(0, device);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut alone = Engine::new(&model, Limits { max_sequences: 1, ..LIMITS }, device)?;
        let mut requests = Vec::new();
        for index in 0..REQUESTS {
            let length = random.random_range(0..=200);
            let vocab = config.vocab_size() as u32;
            let prompt: Vec<u32> = (0..length).map(|_| random.random_range(0..vocab)).collect();
            let sampling = Sampling {
                temperature: [0.0, 0.0, 0.7, 1.2][random.random_range(0..4)],
                top_k: [None, Some(1), Some(50)][random.random_range(0..3)],
                top_p: [None, Some(0.9)][random.random_range(0..2)],
                seed: index as u64,
            };
            let max_tokens = random.random_range(1..=100);
            let options = Options { sampling, max_tokens, eos: Some(0), ..Options::default() };
            let mut answer = Vec::new();
            alone.submit(&prompt, &options)?;
            while !alone.is_idle() {
                let tokens = alone.step()?.into_iter().filter_map(|event| match event {
                    Event::Token { token, .. } => Some(token),
                    Event::Finished { .. } => None,
                });
                answer.extend(tokens);
            }
            requests.push(Request { prompt, options, answer });
        }
        let mut engine = Engine::new(&model, LIMITS, device)?;
        // touches all memory of the caches; a sequence does not attend to older contents of its
        // slot
        engine.fill_random();
        let (live, tokens, finished, cancelled) = (HashMap::new(), 0, 0, 0);
        Ok(Self { name, engine, requests, live, random, tokens, finished, cancelled })
    }

    /// Submits or cancels sequences at random, and decodes a token of each.
    fn step(&mut self) -> Fallible<()> {
        // alternates between an empty engine and a queue
        let wave = (self.tokens / 20_000) % 2;
        if self.live.len() < 2 * SEQUENCES && self.random.random_range(0..2 + 10 * wave) == 0 {
            let index = self.random.random_range(0..self.requests.len());
            let request = &self.requests[index];
            let id = self.engine.submit(&request.prompt, &request.options)?;
            self.live.insert(id, (index, 0));
        }
        if self.random.random_range(0..200) == 0
            && let Some(&id) = self.live.keys().max()
        {
            self.live.remove(&id);
            self.cancelled += 1;
            if !self.engine.cancel(id) {
                return Err(format!("{}: {id:?} was gone", self.name).into());
            }
        }
        for event in self.engine.step()? {
            let id = event.id();
            let Some((index, count)) = self.live.get_mut(&id) else {
                return Err(format!("{}: {event:?} of an unknown sequence", self.name).into());
            };
            let answer = &self.requests[*index].answer;
            match event {
                Event::Token { token, .. } => {
                    if answer.get(*count) != Some(&token) {
                        let place = format!("token {count} of request {index}");
                        let alone = answer.get(*count);
                        return Err(
                            format!("{}: {place} is {token}, alone {alone:?}", self.name).into()
                        );
                    }
                    *count += 1;
                    self.tokens += 1;
                }
                Event::Finished { reason, .. } => {
                    if *count != answer.len() || reason == Finish::NotFinite {
                        let what = format!("{count} of {} tokens, {reason:?}", answer.len());
                        return Err(format!("{}: request {index}: {what}", self.name).into());
                    }
                    self.live.remove(&id);
                    self.finished += 1;
                }
            }
        }
        Ok(())
    }
}

/// Resident memory in kilobytes; `None` on systems that do not report it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn soak(minutes: f64) -> Fallible<()> {
    let device = Device::flex();
    let names = ["small-block", "small-vanilla"];
    let mut all =
        names.into_iter().map(|name| Soak::new(name, &device)).collect::<Fallible<Vec<_>>>()?;
    println!(
        "{REQUESTS} requests of {} were answered alone; testing for {minutes} minutes",
        names.join(" and ")
    );
    let (start, length) = (Instant::now(), Duration::from_secs_f64(minutes * 60.0));
    let mut next_line = Duration::ZERO;
    // resident memory after the first tenth of the time, and the maximum since
    let (mut warm, mut most) = (None, 0);
    while start.elapsed() < length {
        for soak in &mut all {
            soak.step()?;
        }
        if start.elapsed() < next_line {
            continue;
        }
        let memory = resident().unwrap_or(0);
        if start.elapsed() > length / 10 {
            warm.get_or_insert(memory);
            most = most.max(memory);
        }
        let seconds = start.elapsed().as_secs_f64();
        let of = |count: fn(&Soak) -> u64| all.iter().map(count).sum::<u64>();
        println!(
            "{seconds:6.0} s: {} requests finished, {} cancelled, {} tokens, {} sequences now; {} MiB",
            of(|soak| soak.finished),
            of(|soak| soak.cancelled),
            of(|soak| soak.tokens),
            of(|soak| soak.live.len() as u64),
            memory >> 10,
        );
        next_line += (length / 20).min(Duration::from_secs(60));
    }
    let warm = warm.unwrap_or(0);
    if most > warm + SLACK {
        return Err(format!("memory grew from {warm} to {most} kB").into());
    }
    println!("no wrong token; memory from {} to at most {} MiB", warm >> 10, most >> 10);
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let minutes = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--minutes", minutes] => minutes.parse().ok().filter(|minutes: &f64| *minutes > 0.0),
        [] => Some(30.0),
        _ => None,
    };
    let Some(minutes) = minutes else {
        eprintln!("usage: soak [--minutes MINUTES]");
        return ExitCode::from(2);
    };
    match soak(minutes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
