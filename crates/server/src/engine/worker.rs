//! The loop of an engine: it takes commands, runs steps, computes scores, and sends the answers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use block_transformer_evaluation::{EvalError, Request, Scorer};
use block_transformer_family::Family;
use block_transformer_generation::{Finish, PrefixCounts, SequenceId, TextEngine, TextEvent, Work};
use tokio::sync::mpsc::UnboundedSender;

use crate::admission::Ticket;
use crate::engine::command::{Command, Generate, Reply, Score, first_allowed};
use crate::error::{ApiError, ServeError};
use crate::model::Model;

/// Tokens of prompts that are scored together. A longer prompt is scored alone.
pub(super) const SCORED_TOGETHER: usize = 1024;
/// The same between two steps while sequences are decoded.
const SCORED_BETWEEN_STEPS: usize = 256;

/// The time without a command after which one that arrived at an idle engine is begun.
const PAUSE: Duration = Duration::from_millis(2);
/// The same if others have arrived with it, so that more may follow.
const PAUSE_OF_MANY: Duration = Duration::from_millis(6);
/// The longest time that the first one waits for others.
const LONGEST_GATHER: Duration = Duration::from_millis(40);

/// An engine with its commands.
pub(super) struct Worker<M: Family> {
    engine: TextEngine,
    scorer: Scorer<M>,
    /// Whether prompts are scored one by one, because their scores would depend on the other prompts of a batch.
    scores_alone: bool,
    model: Arc<Model>,
    slots: usize,
    commands: Receiver<Command>,
    queue_timeout: Duration,
    /// Prompts that the engine has not got, in the order of their arrival.
    queue: VecDeque<Generate>,
    scores: VecDeque<Score>,
    sequences: HashMap<SequenceId, Sequence>,
    on_step: Option<Box<dyn FnMut() + Send>>,
    /// Whether the server ends.
    stops: bool,
    /// The counts that the metrics contain.
    counted: (Work, PrefixCounts),
}

/// A sequence of the engine.
struct Sequence {
    request: u64,
    choice: usize,
    reply: UnboundedSender<Reply>,
    arrived: Instant,
    /// Time of its last event with tokens.
    last: Option<Instant>,
    tokens: usize,
    _ticket: Option<Ticket>,
}

impl<M: Family> Worker<M> {
    pub(super) fn new(
        engine: TextEngine,
        (scorer, scores_alone): (Scorer<M>, bool),
        model: Arc<Model>,
        commands: Receiver<Command>,
        queue_timeout: Duration,
        on_step: Option<Box<dyn FnMut() + Send>>,
    ) -> Self {
        let slots = model.loaded.get().map_or(1, |loaded| loaded.slots);
        Self {
            engine,
            scorer,
            scores_alone,
            model,
            slots,
            commands,
            queue_timeout,
            queue: VecDeque::new(),
            scores: VecDeque::new(),
            sequences: HashMap::new(),
            on_step,
            stops: false,
            counted: Default::default(),
        }
    }

    /// Works until [`Command::Stop`].
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn run(&mut self) -> Result<(), ServeError> {
        loop {
            if self.engine.is_idle() && self.queue.is_empty() && self.scores.is_empty() {
                self.publish();
                match self.commands.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => return Ok(()),
                }
                self.gather();
            }
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            if self.stops {
                return Ok(());
            }
            self.expire();
            self.start();
            self.publish();
            self.step()?;
            self.score()?;
        }
    }

    /// Takes commands that arrive together with the first one, so that their prompts run together. Later ones join
    /// in small parts between steps, and until all have joined, steps are less efficient.
    fn gather(&mut self) {
        let (start, mut pause) = (Instant::now(), PAUSE);
        while start.elapsed() < LONGEST_GATHER
            && let Ok(command) = self.commands.recv_timeout(pause)
        {
            self.take(command);
            pause = PAUSE_OF_MANY;
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Generate(job) => self.queue.push_back(*job),
            Command::Score(job) => self.scores.push_back(*job),
            Command::Cancel(request) => {
                self.queue.retain(|job| job.request != request);
                self.scores.retain(|job| job.request != request);
                self.cancel(|sequence| sequence.request == request);
            }
            Command::CancelAll(error) => {
                let replies = self.queue.drain(..).map(|job| job.reply);
                let replies = replies.chain(self.scores.drain(..).map(|job| job.reply));
                let running = self.sequences.values().map(|sequence| sequence.reply.clone());
                for reply in replies.chain(running) {
                    let _ = reply.send(Reply::Failed(error.clone()));
                }
                self.cancel(|_| true);
            }
            Command::Stop => self.stops = true,
        }
    }

    /// Ends the sequences with a property.
    fn cancel(&mut self, ends: impl Fn(&Sequence) -> bool) {
        let (engine, ended) = (&mut self.engine, &self.model.metrics.ended);
        self.sequences.retain(|&id, sequence| {
            let ends = ends(sequence);
            if ends {
                engine.cancel(id);
                ended.with_label_values(&["abort"]).inc();
            }
            !ends
        });
    }

    /// Refuses what has waited too long.
    fn expire(&mut self) {
        let (limit, rejected) = (self.queue_timeout, &self.model.metrics.rejected);
        let refuse = |reply: &UnboundedSender<Reply>| {
            rejected.with_label_values(&["queue_timeout"]).inc();
            let _ = reply.send(Reply::Failed(ApiError::queue_timeout(limit.as_secs())));
        };
        while let Some(job) = self.queue.pop_front_if(|job| job.arrived.elapsed() > limit) {
            refuse(&job.reply);
        }
        while let Some(job) = self.scores.pop_front_if(|job| job.arrived.elapsed() > limit) {
            refuse(&job.reply);
        }
    }

    /// Submits prompts while there are free slots. All others stay here, where they can be refused.
    fn start(&mut self) {
        while self.engine.engine().running() + self.engine.engine().waiting() < self.slots
            && let Some(job) = self.queue.pop_front()
        {
            self.submit(job);
        }
    }

    fn submit(&mut self, job: Generate) {
        let Generate { request, first, prefix, prompt, options, stop, tickets, arrived, reply } =
            job;
        let ids = match self.engine.submit_choices(&prefix, &prompt, &options, &stop) {
            Ok(ids) => ids,
            Err(error) => {
                let _ = reply.send(Reply::Failed(error.into()));
                return;
            }
        };
        let metrics = &self.model.metrics;
        let known = prefix.len() + prompt.len();
        metrics.prompt_tokens.inc_by(known as u64);
        let mut tickets = tickets.into_iter();
        for (index, id) in ids.into_iter().enumerate() {
            metrics.queue.observe(arrived.elapsed().as_secs_f64());
            metrics.request_prompt.observe(known as f64);
            let sequence = Sequence {
                request,
                choice: first + index,
                reply: reply.clone(),
                arrived,
                last: None,
                tokens: 0,
                _ticket: tickets.next(),
            };
            self.sequences.insert(id, sequence);
        }
    }

    /// Runs a step of the engine, and sends its events.
    fn step(&mut self) -> Result<(), ServeError> {
        if self.engine.is_idle() {
            return Ok(());
        }
        if let Some(on_step) = &mut self.on_step {
            on_step();
        }
        let start = Instant::now();
        let events = self.engine.step().map_err(|source| ServeError::Engine {
            model: self.model.facts.name.clone(),
            source,
        })?;
        // before clients see the events
        self.publish();
        let metrics = &self.model.metrics;
        metrics.step.observe(start.elapsed().as_secs_f64());
        metrics.step_sequences.observe(self.sequences.len().min(self.slots) as f64);
        let now = Instant::now();
        let mut events = events.into_iter().peekable();
        while let Some(mut event) = events.next() {
            // the last token and the end are one event for clients
            while let Some(TextEvent { text, tokens, chosen, finish, .. }) =
                events.next_if(|next| next.id == event.id)
            {
                event.text += &text;
                event.chosen.extend(chosen);
                (event.tokens, event.finish) = (tokens, finish);
            }
            self.send(event, now);
        }
        Ok(())
    }

    /// Counts an event, and sends it to its request.
    fn send(&mut self, event: TextEvent, now: Instant) {
        let (id, finish) = (event.id, event.finish);
        // there is none if it was cancelled
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let metrics = &self.model.metrics;
        let new = event.tokens - sequence.tokens;
        if new > 0 {
            metrics.new_tokens.inc_by(new as u64);
            match sequence.last.replace(now) {
                None => metrics.first_token.observe((now - sequence.arrived).as_secs_f64()),
                Some(last) => {
                    let each = (now - last).as_secs_f64() / new as f64;
                    (0..new).for_each(|_| metrics.between_tokens.observe(each));
                }
            }
            sequence.tokens = event.tokens;
        }
        let (choice, tokens) = (sequence.choice, sequence.tokens);
        let took = (now - sequence.arrived).as_secs_f64();
        let gone = sequence.reply.send(Reply::Event { choice, event }).is_err();
        if let Some(finish) = finish {
            let reason = match finish {
                Finish::Length => "length",
                Finish::Eos | Finish::Stop => "stop",
                Finish::Cancelled => "abort",
                Finish::NotFinite => "error",
            };
            metrics.ended.with_label_values(&[reason]).inc();
            metrics.request.observe(took);
            metrics.request_new.observe(tokens as f64);
            self.sequences.remove(&id);
        } else if gone {
            self.engine.cancel(id);
            metrics.ended.with_label_values(&["abort"]).inc();
            self.sequences.remove(&id);
        }
    }

    /// Scores the next prompts: a batch of them, or a few if sequences are decoded.
    fn score(&mut self) -> Result<(), ServeError> {
        let room = if self.engine.is_idle() { SCORED_TOGETHER } else { SCORED_BETWEEN_STEPS };
        let (mut jobs, mut tokens) = (Vec::new(), 0);
        while let Some(job) = self.scores.pop_front_if(|job| {
            let fits = tokens + job.tokens.continuation.len() <= room;
            jobs.is_empty() || fits && !self.scores_alone
        }) {
            tokens += job.tokens.continuation.len();
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

    fn scored(&mut self, job: Score, scores: Vec<block_transformer_generation::TokenLogProbs>) {
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
        let _ = job.reply.send(Reply::Scores { prompt: job.prompt, scores });
    }

    /// Updates the metrics that are not counted where they change.
    fn publish(&mut self) {
        let (engine, metrics) = (self.engine.engine(), &self.model.metrics);
        let running = engine.running();
        let queued: usize = self.queue.iter().map(|job| job.options.len()).sum();
        metrics.running.set(running as i64);
        metrics.waiting.set((queued + engine.waiting() + self.scores.len()) as i64);
        metrics.cache_usage.set(running as f64 / self.slots as f64);
        let slot_bytes = self.model.loaded.get().map_or(0, |loaded| loaded.slot_bytes);
        metrics.cache_bytes.set((running as u64 * slot_bytes) as i64);
        let (work, prefixes) = (engine.work(), engine.prefixes());
        let (old_work, old) = std::mem::replace(&mut self.counted, (work, prefixes));
        for (stack, now, before) in [
            ("block", work.block.run, old_work.block.run),
            ("token", work.token.run, old_work.token.run),
        ] {
            let positions = metrics.positions.with_label_values(&[stack]);
            positions.inc_by(now.saturating_sub(before) as u64);
        }
        for (event, now, before) in [
            ("hit", prefixes.hits, old.hits),
            ("miss", prefixes.misses, old.misses),
            ("fork", prefixes.forks, old.forks),
            ("eviction", prefixes.evictions, old.evictions),
        ] {
            let count = metrics.prefixes.with_label_values(&[event]);
            count.inc_by(now.saturating_sub(before) as u64);
        }
        let saved = prefixes.saved_positions.saturating_sub(old.saved_positions);
        metrics.prefix_saved.inc_by(saved as u64);
        metrics.prefix_entries.set(prefixes.entries as i64);
        metrics.prefix_bytes.set(prefixes.bytes as i64);
    }
}
