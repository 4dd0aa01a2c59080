//! Requests to a scorer, and the scorer's answers.

use serde::{Deserialize, Serialize};

/// A request for the log-likelihood of `continuation` after `context`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Token ids of the context. An empty context is read as EOS alone.
    pub context: Vec<u32>,
    /// Token ids to score, at least one.
    pub continuation: Vec<u32>,
}

/// The log-likelihood of a continuation, without that of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    /// Log-likelihood in nats.
    pub log_likelihood: f64,
    /// Whether every token is the most probable one at its position.
    pub greedy: bool,
    /// Number of tokens.
    pub tokens: usize,
}

impl From<&Scored> for Sum {
    fn from(scored: &Scored) -> Self {
        let tokens = scored.log_probs.len();
        Self { log_likelihood: scored.sum(), greedy: scored.greedy, tokens }
    }
}

/// Log-probabilities of a continuation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// Log-probability of each token in nats, given all tokens before it.
    pub log_probs: Vec<f64>,
    /// Whether every token is the most probable one at its position.
    pub greedy: bool,
}

impl Scored {
    /// Log-likelihood of the continuation in nats.
    pub fn sum(&self) -> f64 {
        self.log_probs.iter().sum()
    }
}
