//! Sending requests under a load.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use block_transformer_cost::Lengths;
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::client::{Endpoint, runtime};
use crate::error::BenchError;
use crate::prompt::token_ids;

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// An open loop: requests arrive independently of each other and of the answers (a Poisson process), on average
    /// this number per second.
    Rate(f64),
    /// A closed loop: this number of clients, each of which sends its next request as soon as it has its answer.
    Streams(usize),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "{rate}/s"),
            Self::Streams(1) => f.write_str("1 stream"),
            Self::Streams(streams) => write!(f, "{streams} streams"),
        }
    }
}

/// Requests to a model of a server.
#[derive(Clone, Debug)]
pub struct LoadTest {
    /// The server.
    pub endpoint: Endpoint,
    /// The name of the model.
    pub model: String,
    /// The ids of prompts are below this number.
    pub vocab_size: usize,
    /// Tokens of each prompt and each continuation.
    pub lengths: Lengths,
    /// Seconds after which no more requests are sent. Those that were sent are waited for.
    pub seconds: f64,
    /// The most requests.
    pub requests: usize,
    /// The seed of the times at which requests arrive.
    pub seed: u64,
}

/// A request that was answered. Times are in seconds since the request was due.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trace {
    /// The time of each event with tokens, and the number of tokens so far.
    pub events: Vec<(f64, usize)>,
    /// The time of the end.
    pub end: f64,
}

/// The answers under a load.
#[derive(Debug)]
pub(super) struct Traces {
    pub answered: Vec<Trace>,
    /// The errors of the others.
    pub failed: Vec<String>,
    /// Seconds in which requests were sent and answered.
    pub seconds: f64,
}

/// The prompts that were used, so that no two are the same and nothing is kept from one for another.
static PROMPTS: AtomicUsize = AtomicUsize::new(0);

impl LoadTest {
    /// Sends requests under `load`, after one as a warm-up.
    pub(super) fn traces(&self, load: Load) -> Result<Traces, BenchError> {
        let failed = |reason| BenchError::Server { address: self.model.clone(), reason };
        runtime()?.block_on(async {
            self.request(Instant::now()).await.map_err(failed)?;
            let start = Instant::now();
            let until = start + Duration::from_secs_f64(self.seconds);
            let outcomes = match load {
                Load::Rate(rate) => self.open_loop(rate, start, until).await,
                Load::Streams(streams) => self.closed_loop(streams, until).await,
            };
            let mut seconds = start.elapsed().as_secs_f64();
            if let Load::Rate(_) = load
                && outcomes.len() < self.requests
            {
                // no request may come in the rest of the time
                seconds = seconds.max(self.seconds);
            }
            let (mut answered, mut failed) = (Vec::new(), Vec::new());
            for outcome in outcomes {
                match outcome {
                    Ok(trace) => answered.push(trace),
                    Err(error) => failed.push(error),
                }
            }
            Ok(Traces { answered, failed, seconds })
        })
    }

    async fn open_loop(
        &self,
        rate: f64,
        start: Instant,
        until: Instant,
    ) -> Vec<Result<Trace, String>> {
        // other times at each rate, so that chance does not favour or burden all of them
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ rate.to_bits());
        let (mut due, mut sent) = (start, JoinSet::new());
        while sent.len() < self.requests {
            // the time between two arrivals is exponential; 1 - u is above 0
            let gap = -(1.0 - random.random::<f64>()).ln() / rate;
            due += Duration::from_secs_f64(gap);
            if due >= until {
                break;
            }
            sleep_until(due).await;
            let test = self.clone();
            // from the time at which it was due: a client that is late must not hide the wait
            sent.spawn(async move { test.request(due).await });
        }
        sent.join_all().await
    }

    async fn closed_loop(&self, streams: usize, until: Instant) -> Vec<Result<Trace, String>> {
        let sent = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..streams {
            let (test, sent) = (self.clone(), sent.clone());
            clients.spawn(async move {
                let mut outcomes = Vec::new();
                while Instant::now() < until && sent.fetch_add(1, Ordering::Relaxed) < test.requests
                {
                    outcomes.push(test.request(Instant::now()).await);
                }
                outcomes
            });
        }
        clients.join_all().await.into_iter().flatten().collect()
    }

    /// Sends a request that was due at `due`, and waits for its answer.
    async fn request(&self, due: Instant) -> Result<Trace, String> {
        let body = Bytes::from(self.body(PROMPTS.fetch_add(1, Ordering::Relaxed)));
        let mut events = Vec::new();
        let since = || due.elapsed().as_secs_f64();
        self.endpoint.stream(body, |tokens| events.push((since(), tokens))).await?;
        match events.last() {
            Some(&(_, tokens)) if tokens == self.lengths.new => Ok(Trace { events, end: since() }),
            last => Err(format!(
                "the answer has {} tokens in place of {}",
                last.map_or(0, |&(_, tokens)| tokens),
                self.lengths.new
            )),
        }
    }

    fn body(&self, index: usize) -> Vec<u8> {
        let prompt = token_ids(index, self.lengths.prompt, self.vocab_size);
        let body = serde_json::json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": self.lengths.new,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": { "include_usage": true, "continuous_usage_stats": true },
        });
        body.to_string().into_bytes()
    }
}
