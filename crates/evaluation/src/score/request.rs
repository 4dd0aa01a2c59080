//! Requests to a scorer, and the scorer's answers.

use block_transformer_collectives::Message;
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

/// The scores of a batch. Between ranks, they travel as f64: for each request the number of its tokens, whether
/// they are greedy, and their log-probabilities.
#[derive(Debug, PartialEq)]
pub(crate) struct BatchScores(pub Vec<Scored>);

impl Message for BatchScores {
    fn to_bytes(&self) -> Vec<u8> {
        let values = self.0.iter().flat_map(|Scored { log_probs, greedy }| {
            [log_probs.len() as f64, f64::from(u8::from(*greedy))]
                .into_iter()
                .chain(log_probs.iter().copied())
        });
        values.flat_map(f64::to_le_bytes).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (values, []) = bytes.as_chunks() else { return None };
        let mut values = values.iter().map(|value| f64::from_le_bytes(*value));
        let mut all = Vec::new();
        while let Some(tokens) = values.next() {
            let (tokens, greedy) = (tokens as usize, values.next()? != 0.0);
            let log_probs: Vec<f64> = values.by_ref().take(tokens).collect();
            if log_probs.len() != tokens {
                return None;
            }
            all.push(Scored { log_probs, greedy });
        }
        Some(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_travel_without_a_change_and_a_cut_is_noticed() {
        let one = |log_probs: &[f64], greedy| Scored { log_probs: log_probs.into(), greedy };
        let scores =
            BatchScores(vec![one(&[-0.1, -1e-300], true), one(&[], false), one(&[0.0], false)]);
        let bytes = scores.to_bytes();
        assert_eq!(BatchScores::from_bytes(&bytes), Some(scores));
        for cut in [1, 8, 16, 20] {
            assert_eq!(BatchScores::from_bytes(&bytes[..bytes.len() - cut]), None, "{cut}");
        }
        assert_eq!(BatchScores::from_bytes(&[]), Some(BatchScores(Vec::new())));
    }
}
