//! Prompts and continuations of given lengths, and how fast a machine could write them.

use std::fmt;
use std::str::FromStr;

use block_transformer_generation::{GenerationError, Limits};
use block_transformer_zoo::ModelConfig;
use serde::Serialize;

use crate::{Cost, Machine, Phases, Sizes, decode, prefill};

/// Tokens of the prompt and of what is written after it; `2048:128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Of the prompt.
    pub prompt: usize,
    /// To be written.
    pub new: usize,
}

/// No lengths.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}`: write the tokens of the prompt and those to be written, such as 2048:128, each 1 to {most}",
    most = Lengths::MOST
)]
pub struct LengthsError(String);

impl Lengths {
    /// Tokens of either, at most.
    pub const MOST: usize = 1 << 24;
}

impl FromStr for Lengths {
    type Err = LengthsError;

    fn from_str(text: &str) -> Result<Self, LengthsError> {
        let parse =
            |part: &str| part.parse().ok().filter(|tokens| (1..=Self::MOST).contains(tokens));
        let lengths = text
            .split_once(':')
            .and_then(|(prompt, new)| Some(Self { prompt: parse(prompt)?, new: parse(new)? }));
        lengths.ok_or_else(|| LengthsError(text.into()))
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.prompt, self.new)
    }
}

impl Lengths {
    /// All of them.
    pub fn total(self) -> usize {
        self.prompt.saturating_add(self.new)
    }
}

/// As many sequences of `tokens` tokens as fit into `machine`'s memory.
///
/// # Errors
/// When not even one fits.
pub fn largest_batch(
    config: &ModelConfig,
    machine: &Machine,
    tokens: usize,
) -> Result<Limits, GenerationError> {
    // the limits count f32: with numbers of half the size, everything else is as if twice as large
    let scale = 4.0 / machine.numbers.bytes() as f64;
    let sizes = Sizes::from(machine);
    let matrices = config.num_matrix_params() as f64;
    let others = config.num_params() as f64 - matrices;
    let weights = matrices * sizes.weights + others * sizes.numbers;
    let scaled = |bytes: f64| (bytes * scale) as u64;
    Limits::that_fit(config, scaled(weights), tokens, usize::MAX, scaled(machine.memory)).map_err(
        |error| match error {
            GenerationError::Memory { given, tokens, needed, weights } => {
                let unscaled = |bytes: u64| (bytes as f64 / scale) as u64;
                let [given, needed, weights] = [given, needed, weights].map(unscaled);
                GenerationError::Memory { given, tokens, needed, weights }
            }
            error => error,
        },
    )
}

/// How fast a batch could be written.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// Sequences together.
    pub batch: usize,
    /// Seconds until a prompt that comes alone has its first token.
    pub first_token: f64,
    /// Seconds of all prompts.
    pub prefill: f64,
    /// Seconds of everything after.
    pub decode: f64,
    /// Tokens a second at [`Phases::seconds`], prompts included.
    pub rate: f64,
    /// Tokens a second at [`Cost::bound`], prompts included: nothing is faster.
    pub bound: f64,
    /// A token in the middle of what is written.
    pub token: Cost,
}

/// `batch` prompts and continuations of these `lengths` on `machine`.
pub fn estimate(
    config: &ModelConfig,
    machine: &Machine,
    lengths: Lengths,
    batch: usize,
) -> Estimate {
    let sizes = Sizes::from(machine);
    let read = prefill(config, lengths.prompt, sizes);
    let prefill = read.seconds(machine) * batch as f64;
    let mut least = read.total().bound(machine) * batch as f64;
    let step = |context: usize| decode(config, batch, context, sizes);
    let length = config.block_length();
    let (mut decode_seconds, mut written) = (0.0, 0);
    while written < lengths.new {
        let tokens = length.min(lengths.new - written) as f64;
        let step: Phases = step(lengths.prompt + written);
        decode_seconds += tokens * step.seconds(machine);
        least += tokens * step.total().bound(machine);
        written += length;
    }
    let tokens = (batch * lengths.new) as f64;
    let alone = decode(config, 1, lengths.prompt, sizes);
    Estimate {
        batch,
        first_token: read.seconds(machine) + alone.seconds(machine),
        prefill,
        decode: decode_seconds,
        rate: tokens / (prefill + decode_seconds),
        bound: tokens / least,
        token: step(lengths.prompt + lengths.new / 2).total() * (1.0 / batch as f64),
    }
}
