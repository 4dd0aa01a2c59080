//! The loop of an engine: it takes commands, runs steps, computes scores, and sends the answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use block_transformer_evaluation::Scorer;
use block_transformer_family::Family;
use block_transformer_generation::{Finish, PrefixCounts, SequenceId, TextEngine, TextEvent, Work};
use tokio::sync::mpsc::UnboundedSender;

use crate::admission::Ticket;
use crate::engine::command::{Command, Generate, Reply, Score};
use crate::error::{ApiError, ServeError};
use crate::model::Model;

/// The time without a command after which one that arrived at an idle engine is begun.
const PAUSE: Duration = Duration::from_millis(2);
/// The same if others have arrived with it, so that more may follow.
const PAUSE_OF_MANY: Duration = Duration::from_millis(6);
/// The longest time that the first one waits for others.
const LONGEST_GATHER: Duration = Duration::from_millis(40);

/// An engine with its commands.
pub(super) struct Worker<M: Family> {
    pub(super) engine: TextEngine,
    pub(super) scorer: Scorer<M>,
    /// Whether prompts are scored one by one, because their scores would depend on the other prompts of a batch.
    pub(super) scores_alone: bool,
    pub(super) model: Arc<Model>,
    slots: usize,
    commands: Receiver<Command>,
    queue_timeout: Duration,
    /// Prompts that the engine has not got, in the order of their arrival.
    pub(super) queue: VecDeque<Generate>,
    pub(super) scores: VecDeque<Score>,
    /// Requests of which a prompt has been taken from a queue.
    pub(super) begun: HashSet<u64>,
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
    ticket: Option<Ticket>,
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
            begun: HashSet::new(),
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
            self.start();
            self.expire();
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
                self.begun.remove(&request);
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

    /// Refuses the requests that have waited too long. One that was begun is worked on to its end.
    fn expire(&mut self) {
        let Self { queue_timeout: limit, begun, model, .. } = self;
        let is_late = |request: u64, arrived: Instant| {
            arrived.elapsed() > *limit && !begun.contains(&request)
        };
        let refuse = |reply: &UnboundedSender<Reply>| {
            model.metrics.rejected.with_label_values(&["queue_timeout"]).inc();
            let _ = reply.send(Reply::Failed(ApiError::queue_timeout(*limit)));
        };
        self.queue.retain_mut(|job| {
            let is_late = is_late(job.request, job.arrived);
            if is_late {
                job.tickets.clear();
                refuse(&job.reply);
            }
            !is_late
        });
        self.scores.retain_mut(|job| {
            let is_late = is_late(job.request, job.arrived);
            if is_late {
                job.ticket = None;
                refuse(&job.reply);
            }
            !is_late
        });
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
                drop(tickets);
                let _ = reply.send(Reply::Failed(error.into()));
                return;
            }
        };
        self.begun.insert(request);
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
                ticket: tickets.next(),
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
        if finish.is_some() {
            // the place is free before the client can know
            sequence.ticket = None;
        }
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
