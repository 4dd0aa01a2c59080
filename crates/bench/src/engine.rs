//! One measurement of an engine.

use std::time::Instant;

use block_transformer_cost::{Lengths, Machine, Prediction, Workload};
use block_transformer_generation::{Engine, Event, Limits, Memory, Options, SequenceId, Storage};
use block_transformer_zoo::family::CacheFormat;
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, Precision};
use burn::tensor::Device;

use crate::candidate::Candidate;
use crate::error::BenchError;
use crate::memory::Growth;
use crate::prompt::token_ids;

/// The most tokens that are decoded after a context.
const TOKENS: usize = 64;

/// The result of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measurement {
    /// Generated tokens per second. The time includes the prompts, if the workload has prompts.
    pub rate: f64,
    /// Seconds until a prompt that is decoded alone has its first token.
    pub first_token: Option<f64>,
    /// Bytes by which the process grew at its peak.
    pub peak_bytes: Option<u64>,
}

/// A model and how it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub candidate: &'a Candidate,
    pub workload: Workload,
    pub batch: usize,
    /// Time limit in seconds for the prompts, and the same limit for the decoding; `None` for no
    /// limit.
    pub seconds: Option<f64>,
    pub precision: Precision,
    /// Whether blocks may be captured as graphs.
    pub graphs: bool,
    pub device: &'a Device,
}

/// Returns the number of tokens that a slot must hold.
pub(crate) fn room(workload: Workload) -> usize {
    match workload {
        Workload::Lengths(lengths) => lengths.total(),
        Workload::AtContext(context) => context.saturating_add(TOKENS),
    }
}

impl Setup<'_> {
    fn limits(&self) -> Limits {
        Limits { max_sequences: self.batch, max_tokens: room(self.workload) }
    }

    fn block_length(&self) -> usize {
        self.candidate.config.block_length()
    }

    /// Checks that the continuation is long enough to be timed.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let (workload, least) = (self.workload, 4 * self.block_length());
        match (workload, self.seconds) {
            (Workload::Lengths(lengths), Some(_)) if lengths.new < least => {
                Err(BenchError::TooShort { workload, least })
            }
            _ => Ok(()),
        }
    }

    /// Returns the predicted memory.
    pub(crate) fn memory(&self) -> Memory {
        let config = &self.candidate.config;
        let storage = Storage::of(config, self.precision).on(self.device);
        self.limits().memory(config, storage)
    }

    /// Returns the predicted speed. For a workload after a context, it is the speed in the middle
    /// of the decoded tokens.
    pub(crate) fn predict(&self, machine: &Machine) -> Prediction {
        let workload = match self.workload {
            Workload::AtContext(context) => Workload::AtContext(context + TOKENS / 2),
            lengths => lengths,
        };
        Prediction::new(&self.candidate.config, machine, workload, self.batch)
    }

    /// Creates an engine and measures it.
    pub(crate) fn measure(&self) -> Result<Measurement, BenchError> {
        let growth = Growth::start();
        let model = self.candidate.model(self.device)?.with_precision(self.precision).prepared();
        let mut engine =
            Engine::with_cache(&model, self.limits(), self.precision.cache(), self.device)?;
        if !self.graphs {
            engine = engine.with_graphs(false);
        }
        // accesses all memory of the caches; workloads that start after a context attend to these
        // random values
        engine.fill_random();
        let vocab_size = self.candidate.config.vocab_size();
        let mut busy = BusyEngine { engine, vocab_size, allowed: None, submitted: Vec::new() };
        let (rate, first_token) = match self.workload {
            Workload::AtContext(context) => {
                (self.batch as f64 / self.token(&mut busy, context)?, None)
            }
            Workload::Lengths(lengths) => {
                busy.run(1, lengths.prompt, 1)?; // warm-up
                let first_token = busy.run(1, lengths.prompt, 1)?;
                let seconds = self.lengths(&mut busy, lengths, first_token)?;
                ((self.batch * lengths.new) as f64 / seconds, Some(first_token))
            }
        };
        Ok(Measurement { rate, first_token, peak_bytes: growth.bytes() })
    }

    /// Returns the seconds that all prompts and continuations take. With a time limit, the result
    /// is extrapolated from some of the prompts and from tokens in the middle of the continuations.
    fn lengths(
        &self,
        busy: &mut BusyEngine,
        lengths: Lengths,
        first_token: f64,
    ) -> Result<f64, BenchError> {
        let Some(seconds) = self.seconds else {
            return busy.run(self.batch, lengths.prompt, lengths.new);
        };
        let some = ((seconds / first_token) as usize).clamp(1, self.batch);
        let prefill = busy.run(some, lengths.prompt, 1)? * self.batch as f64 / some as f64;
        // the prefill includes the first token
        let Some(left) = lengths.new.checked_sub(1).filter(|&left| left > 0) else {
            return Ok(prefill);
        };
        let middle = lengths.prompt + (lengths.new / 2).saturating_sub(TOKENS / 2);
        Ok(prefill + left as f64 * self.token(busy, middle)?)
    }

    /// Returns the seconds that one token of every sequence takes after `context` tokens.
    fn token(&self, busy: &mut BusyEngine, context: usize) -> Result<f64, BenchError> {
        let block_length = self.block_length();
        // the tokens that fit after the context and a prompt of one block
        let start = context.next_multiple_of(block_length) + block_length;
        let tokens = room(self.workload).saturating_sub(start).min(TOKENS + block_length);
        busy.submit(self.batch, context, block_length, tokens)?;
        busy.block(block_length)?; // the first block is the warm-up
        // whole blocks, so that every position in a block counts the same
        let (start, mut steps) = (Instant::now(), 0);
        while steps + block_length <= tokens - block_length {
            busy.block(block_length)?;
            steps += block_length;
            if self.seconds.is_some_and(|most| start.elapsed().as_secs_f64() >= most) {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        for id in busy.submitted.drain(..) {
            busy.engine.cancel(id);
        }
        Ok(seconds / steps as f64)
    }
}

/// An engine that decodes batches of prompts of the same lengths.
pub(crate) struct AloneEngine {
    busy: BusyEngine,
    lengths: Lengths,
    batch: usize,
}

impl AloneEngine {
    /// Creates an engine for `batch` sequences of `lengths`; it chooses ids below `vocab`.
    pub(crate) fn new(
        model: &LanguageModel,
        vocab: usize,
        lengths: Lengths,
        batch: usize,
        cache: CacheFormat,
        device: &Device,
    ) -> Result<Self, BenchError> {
        let limits = Limits { max_sequences: batch, max_tokens: lengths.total() };
        let engine = Engine::with_cache(model, limits, cache, device)?;
        let busy =
            BusyEngine { engine, vocab_size: vocab, allowed: Some(vocab), submitted: Vec::new() };
        Ok(Self { busy, lengths, batch })
    }

    /// Decodes a batch, and returns the new tokens per second. The time includes the prompts.
    pub(crate) fn rate(&mut self) -> Result<f64, BenchError> {
        let seconds = self.busy.run(self.batch, self.lengths.prompt, self.lengths.new)?;
        Ok((self.batch * self.lengths.new) as f64 / seconds)
    }
}

/// An engine with the sequences that it decodes.
struct BusyEngine {
    engine: Engine,
    vocab_size: usize,
    /// The ids that may be chosen are below this one.
    allowed: Option<usize>,
    submitted: Vec<SequenceId>,
}

impl BusyEngine {
    /// Decodes `count` sequences, and returns the seconds that this took.
    fn run(&mut self, count: usize, prompt: usize, new: usize) -> Result<f64, BenchError> {
        self.submit(count, 0, prompt, new)?;
        let start = Instant::now();
        while !self.engine.is_idle() {
            self.engine.step()?;
        }
        self.submitted.clear();
        Ok(start.elapsed().as_secs_f64())
    }

    /// Decodes a block of every sequence.
    fn block(&mut self, block_length: usize) -> Result<(), BenchError> {
        let mut left = self.submitted.len() * block_length;
        while left > 0 {
            // a step decodes one token of every sequence, or a whole block
            let events = self.engine.step()?;
            let tokens = events.iter().filter(|event| matches!(event, Event::Token { .. })).count();
            left = left.saturating_sub(tokens.max(1));
        }
        Ok(())
    }

    /// Submits `count` prompts of `prompt` tokens, each after a context of `context` tokens.
    fn submit(
        &mut self,
        count: usize,
        context: usize,
        prompt: usize,
        new: usize,
    ) -> Result<(), BenchError> {
        let options = Options {
            max_tokens: new,
            eos: None,
            allowed_vocab: self.allowed,
            ..Options::default()
        };
        for sequence in 0..count {
            let prompt = token_ids(sequence, prompt, self.vocab_size);
            self.submitted.push(self.engine.submit_after(context, &prompt, &options)?);
        }
        Ok(())
    }
}
