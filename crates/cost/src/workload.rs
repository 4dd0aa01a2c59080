//! Workloads: the tokens that each sequence reads and writes.

use std::fmt;
use std::str::FromStr;

/// The lengths of a prompt and its continuation in tokens, written as `2048:128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the continuation.
    pub new: usize,
}

/// A text that is not a pair of lengths.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` must be the lengths of prompt and continuation in tokens, such as 2048:128, each from 1 \
     to {most}",
    most = Lengths::MOST
)]
pub struct LengthsError(String);

impl Lengths {
    /// The largest length.
    pub const MOST: usize = 1 << 24;

    /// Returns the tokens of prompt and continuation together.
    pub fn total(self) -> usize {
        self.prompt.saturating_add(self.new)
    }
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

/// The work of each sequence in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// The sequence reads a prompt and writes a continuation.
    Lengths(Lengths),
    /// The sequence writes tokens after this many tokens of context.
    AtContext(usize),
}

impl Workload {
    /// Returns the number of tokens that a sequence has at its end; after a context, this is one
    /// token more than the context.
    pub fn tokens(self) -> usize {
        match self {
            Self::Lengths(lengths) => lengths.total(),
            Self::AtContext(context) => context.saturating_add(1),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lengths(lengths) => lengths.fmt(f),
            Self::AtContext(context) => write!(f, "at {context}"),
        }
    }
}
