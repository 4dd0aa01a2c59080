//! One measurement of an engine.

use std::time::Instant;

use anyhow::{Result, ensure};
use block_transformer_cost::{Lengths, Machine, Sizes, estimate};
use block_transformer_generation::{Engine, Limits, Memory, Options, SequenceId};
use burn::tensor::{DType, Device};

use super::case::Case;
use crate::device::Weights;
use crate::memory::Growth;

/// Tokens decoded at a depth, at most.
const TOKENS: usize = 64;

/// What is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Prompts and continuations.
    Lengths(Lengths),
    /// Tokens behind a filled cache of this many.
    At(usize),
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lengths(lengths) => lengths.fmt(f),
            Self::At(context) => write!(f, "at {context}"),
        }
    }
}

impl Work {
    /// Tokens a sequence needs room for.
    pub fn tokens(self) -> usize {
        match self {
            Self::Lengths(lengths) => lengths.total(),
            Self::At(context) => context.saturating_add(TOKENS),
        }
    }
}

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Tokens a second, prompts included.
    pub rate: f64,
    /// Seconds to the first token of a prompt that comes alone.
    pub first_token: Option<f64>,
    /// Bytes the process grew by.
    pub peak_bytes: Option<u64>,
}

/// What the cost model says of the same.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub bound: f64,
    pub rate: f64,
    pub token_flops: f64,
    pub token_bytes: f64,
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    pub work: Work,
    pub batch: usize,
    /// Seconds that reading prompts, and decoding, may take each; all of it if there are none.
    pub seconds: Option<f64>,
    pub weights: Weights,
    pub device: &'a Device,
}

impl Setting<'_> {
    pub fn limits(&self) -> Limits {
        Limits { sequences: self.batch, tokens: self.work.tokens() }
    }

    /// # Errors
    /// When there is too little to time.
    pub fn check(&self, case: &Case) -> Result<()> {
        let least = 4 * case.config.block_length();
        if let (Work::Lengths(lengths), Some(_)) = (self.work, self.seconds) {
            ensure!(
                lengths.new >= least,
                "--lengths {lengths}: parts of fewer than {least} tokens are too short to time; use --whole"
            );
        }
        Ok(())
    }

    pub fn memory(&self, case: &Case) -> Memory {
        self.limits().memory(&case.config, weight_bytes(case, self.weights))
    }

    pub fn expected(&self, case: &Case, machine: &Machine) -> Expected {
        match self.work {
            Work::Lengths(lengths) => {
                let all = estimate(&case.config, machine, lengths, self.batch);
                let token_bytes = all.token.weights + all.token.caches;
                let token_flops = all.token.flops();
                Expected { bound: all.bound, rate: all.rate, token_flops, token_bytes }
            }
            Work::At(context) => {
                // the middle of what is decoded
                let at = context + TOKENS / 2;
                let step = block_transformer_cost::decode(
                    &case.config,
                    self.batch,
                    at,
                    Sizes::from(machine),
                );
                let (batch, total) = (self.batch as f64, step.total());
                Expected {
                    bound: batch / total.bound(machine),
                    rate: batch / step.seconds(machine),
                    token_flops: total.flops() / batch,
                    token_bytes: (total.weights + total.caches) / batch,
                }
            }
        }
    }

    /// Makes an engine, and lets it work.
    ///
    /// # Errors
    /// When the model cannot be loaded, or the device fails.
    pub fn measure(&self, case: &Case) -> Result<Measured> {
        let growth = Growth::start();
        let model = case.model(self.weights, self.device)?;
        let mut engine = Engine::new(&model, &case.config, self.limits(), self.device)?;
        // touches all its memory, and gives decoding at a depth something to attend to
        engine.fill();
        let mut run = Run { engine, vocab: case.config.vocab_size(), submitted: Vec::new() };
        let length = case.config.block_length();
        let (rate, first_token) = match self.work {
            Work::At(context) => (self.batch as f64 / self.step(&mut run, context, length)?, None),
            Work::Lengths(lengths) => {
                run.prompts(1, lengths.prompt, 1)?; // warms up
                let first_token = run.prompts(1, lengths.prompt, 1)?;
                let seconds = self.lengths(&mut run, lengths, first_token, length)?;
                ((self.batch * lengths.new) as f64 / seconds, Some(first_token))
            }
        };
        Ok(Measured { rate, first_token, peak_bytes: growth.bytes() })
    }

    /// Seconds of all prompts and continuations; where there is a time limit, from parts of them.
    fn lengths(
        &self,
        run: &mut Run,
        lengths: Lengths,
        first_token: f64,
        length: usize,
    ) -> Result<f64> {
        let Some(seconds) = self.seconds else {
            return run.prompts(self.batch, lengths.prompt, lengths.new);
        };
        let some = ((seconds / first_token) as usize).clamp(1, self.batch);
        let prefill = run.prompts(some, lengths.prompt, 1)? * self.batch as f64 / some as f64;
        // that was the first token already
        let Some(left) = lengths.new.checked_sub(1).filter(|&left| left > 0) else {
            return Ok(prefill);
        };
        let middle = lengths.prompt + (lengths.new / 2).saturating_sub(TOKENS / 2);
        Ok(prefill + left as f64 * self.step(run, middle, length)?)
    }

    /// Seconds of a token of all sequences that have `context` tokens.
    fn step(&self, run: &mut Run, context: usize, length: usize) -> Result<f64> {
        // the tokens there is room for behind the context and a block of prompt
        let room = self.work.tokens().saturating_sub(context.next_multiple_of(length) + length);
        let tokens = room.min(TOKENS + length);
        run.submit(self.batch, context, length, tokens)?;
        for _ in 0..length {
            run.engine.step()?; // the first block warms up
        }
        // whole blocks, so that every place of a block counts the same
        let (start, mut steps) = (Instant::now(), 0);
        while steps + length <= tokens - length {
            for _ in 0..length {
                run.engine.step()?;
            }
            steps += length;
            if self.seconds.is_some_and(|most| start.elapsed().as_secs_f64() >= most) {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        run.clear();
        Ok(seconds / steps as f64)
    }
}

/// Bytes of a case's weights.
pub fn weight_bytes(case: &Case, weights: Weights) -> u64 {
    let stored = if weights == Weights::F32 { DType::F32 } else { DType::BF16 };
    case.config.weight_bytes(stored)
}

/// An engine at work.
struct Run {
    engine: Engine,
    vocab: usize,
    submitted: Vec<SequenceId>,
}

impl Run {
    /// Seconds of `count` prompts and what is written after them.
    fn prompts(&mut self, count: usize, prompt: usize, new: usize) -> Result<f64> {
        self.submit(count, 0, prompt, new)?;
        let start = Instant::now();
        while !self.engine.is_idle() {
            self.engine.step()?;
        }
        self.submitted.clear();
        Ok(start.elapsed().as_secs_f64())
    }

    /// Queues `count` prompts behind `context` tokens.
    fn submit(&mut self, count: usize, context: usize, prompt: usize, new: usize) -> Result<()> {
        let options = Options { max_tokens: new, eos: None, ..Options::default() };
        for sequence in 0..count {
            // as different from each other as text is
            let id = |i: usize| ((sequence * 7919 + i * 104_729 + 17) % self.vocab) as u32;
            let prompt: Vec<u32> = (0..prompt).map(id).collect();
            self.submitted.push(self.engine.submit_after(context, &prompt, &options)?);
        }
        Ok(())
    }

    /// Drops what is under way.
    fn clear(&mut self) {
        for id in self.submitted.drain(..) {
            self.engine.cancel(id);
        }
    }
}
