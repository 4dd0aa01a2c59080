//! The scores of prompts, which an engine computes between its steps.

use std::time::Instant;

use block_transformer_evaluation::{EvalError, Request};
use block_transformer_family::Family;
use block_transformer_generation::TokenLogProbs;

use crate::engine::command::{Reply, Score, first_allowed};
use crate::engine::worker::Worker;
use crate::error::{ApiError, ServeError};

/// Tokens of prompts that are scored together. A longer prompt is scored alone.
pub(super) const SCORED_TOGETHER: usize = 1024;
/// The same between two steps while sequences are decoded.
const SCORED_BETWEEN_STEPS: usize = 256;

impl<M: Family> Worker<M> {
    /// Scores the next prompts: a batch of them, or a few if sequences are decoded.
    pub(super) fn score(&mut self) -> Result<(), ServeError> {
        let room = if self.engine.is_idle() { SCORED_TOGETHER } else { SCORED_BETWEEN_STEPS };
        let (mut jobs, mut tokens) = (Vec::new(), 0);
        while let Some(job) = self.scores.pop_front_if(|job| {
            let fits = tokens + job.tokens.continuation.len() <= room;
            jobs.is_empty() || fits && !self.scores_alone
        }) {
            tokens += job.tokens.continuation.len();
            self.begun.insert(job.request);
            jobs.push(job);
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        self.score_jobs(jobs)?;
        self.model.metrics.scoring.observe(start.elapsed().as_secs_f64());
        Ok(())
    }

    fn score_jobs(&mut self, mut jobs: Vec<Score>) -> Result<(), ServeError> {
        let requests: Vec<Request> =
            jobs.iter_mut().map(|job| std::mem::take(&mut job.tokens)).collect();
        let top = jobs.iter().map(|job| job.top).max().unwrap_or(0);
        match self.scorer.score_tokens(&requests, top) {
            Ok(scores) => {
                for (job, mut scores) in jobs.into_iter().zip(scores) {
                    // lists of several requests are as long as the longest
                    scores.iter_mut().for_each(|score| score.top.truncate(job.top));
                    self.scored(job, scores);
                }
                Ok(())
            }
            Err(error @ EvalError::Device(_)) => {
                let model = self.model.facts.name.clone();
                Err(ServeError::Scorer { model, source: Box::new(error) })
            }
            // one of them is to blame
            Err(_) if jobs.len() > 1 => {
                for (mut job, tokens) in jobs.into_iter().zip(requests) {
                    job.tokens = tokens;
                    self.score_jobs(vec![job])?;
                }
                Ok(())
            }
            Err(error) => {
                let error = match error {
                    EvalError::NotFinite => ApiError::not_finite(),
                    error => ApiError::field("prompt", error.to_string()),
                };
                for job in jobs {
                    let _ = job.reply.send(Reply::Failed(error.clone()));
                }
                Ok(())
            }
        }
    }

    fn scored(&mut self, job: Score, scores: Vec<TokenLogProbs>) {
        let metrics = &self.model.metrics;
        metrics.scored_tokens.inc_by(scores.len() as u64);
        if job.ticket.is_some() {
            metrics.prompt_tokens.inc_by(job.known as u64);
            metrics.request.observe(job.arrived.elapsed().as_secs_f64());
            metrics.ended.with_label_values(&["length"]).inc();
        }
        if let Some(next) = job.next {
            let top = scores.last().map_or(&[][..], |score| &score.top);
            if first_allowed(top, self.model.facts.tokenizer_vocab).is_none() {
                self.queue.push_back(*next);
            }
        }
        // the place is free before the client can know
        drop(job.ticket);
        let _ = job.reply.send(Reply::Scores { prompt: job.prompt, scores });
    }
}
