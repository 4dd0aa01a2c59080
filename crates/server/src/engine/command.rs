//! Commands to an engine, and its answers.

use std::time::Instant;

use block_transformer_evaluation::Request;
use block_transformer_generation::{Options, PAD, TextEvent, TokenLogProbs};
use tokio::sync::mpsc::UnboundedSender;

use crate::admission::Ticket;
use crate::error::ApiError;

/// A command of a request.
pub(crate) enum Command {
    Generate(Box<Generate>),
    Score(Box<Score>),
    /// Ends everything of a request, without an answer.
    Cancel(u64),
    /// Ends everything of all requests, with an error.
    CancelAll(ApiError),
    /// Ends the engine.
    Stop,
}

/// The choices of a prompt.
#[derive(Debug)]
pub(crate) struct Generate {
    pub request: u64,
    /// Index of the first choice.
    pub first: usize,
    pub prefix: Vec<u32>,
    pub prompt: Vec<u32>,
    /// One for each choice.
    pub options: Vec<Options>,
    pub stop: Vec<String>,
    /// One for each choice.
    pub tickets: Vec<Ticket>,
    pub arrived: Instant,
    pub reply: UnboundedSender<Reply>,
}

/// A prompt whose log-probabilities are asked for.
#[derive(Debug)]
pub(crate) struct Score {
    pub request: u64,
    /// Index of the prompt.
    pub prompt: usize,
    /// Tokens of the prompt.
    pub known: usize,
    pub tokens: Request,
    /// Number of most likely tokens.
    pub top: usize,
    pub ticket: Option<Ticket>,
    /// If the next token is to be taken from the last score: how to choose it if none of the most likely tokens is
    /// allowed.
    pub next: Option<Box<Generate>>,
    pub arrived: Instant,
    pub reply: UnboundedSender<Reply>,
}

/// An answer of an engine to a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// New text of a choice, or its end.
    Event { choice: usize, event: TextEvent },
    /// The scores of a prompt.
    Scores { prompt: usize, scores: Vec<TokenLogProbs> },
    /// Nothing follows.
    Failed(ApiError),
}

/// The most likely token that can be chosen: one that the tokenizer has, except padding.
pub(crate) fn first_allowed(top: &[(u32, f64)], tokenizer_vocab: usize) -> Option<(u32, f64)> {
    top.iter().copied().find(|&(id, _)| id != PAD && (id as usize) < tokenizer_vocab)
}
