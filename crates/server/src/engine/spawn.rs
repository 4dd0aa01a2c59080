//! Models with a thread pool of their own.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use block_transformer_evaluation::{Alignment, Scorer};
use block_transformer_family::{CacheFormat, Family};
use block_transformer_generation::TextEngine;
use block_transformer_text::Tokenizer;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::EngineOptions;
use crate::engine::command::Command;
use crate::engine::panic::{mark_thread, text};
use crate::engine::scoring::SCORED_TOGETHER;
use crate::engine::slots;
use crate::engine::worker::Worker;
use crate::error::ServeError;
use crate::lifecycle::Notice;
use crate::metrics::Metrics;
use crate::model::{Facts, Loaded, Model};
use crate::token_text::TokenTexts;

/// Bytes of stack per thread, as the main thread has.
const STACK: usize = 8 << 20;

/// A model to serve.
pub struct ServedModel {
    facts: Facts,
    tokenizer: Arc<Tokenizer>,
    threads: usize,
    run: Box<dyn FnOnce(Context) -> Result<(), ServeError> + Send>,
}

/// What the thread of an engine gets.
struct Context {
    model: Arc<Model>,
    commands: Receiver<Command>,
    queue_timeout: Duration,
    events: UnboundedSender<EngineEvent>,
}

/// An event of the life of an engine.
#[derive(Debug)]
pub(crate) enum EngineEvent {
    /// The model can be used.
    Loaded(Notice),
    /// The engine has ended. If nothing ended it, this is an error.
    Ended(Result<(), ServeError>),
}

impl ServedModel {
    /// A model that requests call `name`. `load` is called on the thread of the engine; the model that it returns must
    /// have the configuration `config` and be on the device of `options`, without autodiff.
    pub fn new<M: Family>(
        name: impl Into<String>,
        config: &M::Config,
        tokenizer: impl Into<Arc<Tokenizer>>,
        options: EngineOptions,
        load: impl FnOnce() -> Result<M, Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Self {
        let tokenizer = tokenizer.into();
        let facts = Facts::new(name.into(), config, &tokenizer, options.max_tokens, options.cache);
        let threads = options.threads;
        Self {
            facts,
            tokenizer,
            threads,
            run: Box::new(move |context| run(context, options, load)),
        }
    }

    /// Adds a text that identifies the weights. Answers contain it as `system_fingerprint`.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: impl Into<String>) -> Self {
        self.facts.fingerprint = Some(fingerprint.into());
        self
    }

    /// The name by which requests choose the model.
    pub(crate) fn name(&self) -> &str {
        &self.facts.name
    }
}

impl std::fmt::Debug for ServedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedModel").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// The thread pools of all engines. Dropping them does not wait for the engines.
#[derive(Debug, Default)]
pub(crate) struct Engines(Vec<ThreadPool>);

impl Engines {
    /// Starts the engine of `model` on a thread of a new pool. On any other thread, every parallel operation would
    /// first wake a thread of the pool and then wait for it; and in a pool that several engines share, the thread of
    /// one could take a whole step of another.
    pub(crate) fn start(
        &mut self,
        model: ServedModel,
        (queue, queue_timeout): (usize, Duration),
        metrics: &Metrics,
        events: UnboundedSender<EngineEvent>,
    ) -> Result<Arc<Model>, ServeError> {
        let ServedModel { facts, tokenizer, threads, run } = model;
        let name = facts.name.clone();
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(STACK)
            .thread_name(|index| format!("engine-{index}"))
            .start_handler(|_| mark_thread())
            .build()
            .map_err(|error| ServeError::Start(std::io::Error::other(error)))?;
        let (sender, commands) = mpsc::channel();
        let metrics = metrics.of_model(&name);
        let model = Arc::new(Model::new(facts, tokenizer, metrics, queue, sender));
        let context =
            Context { model: model.clone(), commands, queue_timeout, events: events.clone() };
        pool.spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| run(context)));
            let result = result.unwrap_or_else(|payload| {
                Err(ServeError::Failed { model: name, reason: text(&*payload) })
            });
            // nobody listens if the server has ended
            let _ = events.send(EngineEvent::Ended(result));
        });
        self.0.push(pool);
        Ok(model)
    }
}

/// Loads a model, and works for its requests.
fn run<M: Family>(
    context: Context,
    options: EngineOptions,
    load: impl FnOnce() -> Result<M, Box<dyn Error + Send + Sync>>,
) -> Result<(), ServeError> {
    let Context { model: shared, commands, queue_timeout, events } = context;
    let (name, start) = (shared.facts.name.clone(), Instant::now());
    let model = load().map_err(|source| ServeError::Load { model: name.clone(), source })?;
    let (engine, limits) = slots::engine(&name, &model, &options)?;
    let (sequences, tokens) = (limits.max_sequences, limits.max_tokens);
    let storage = block_transformer_generation::Storage::new(0, options.cache);
    let slot_bytes = limits.memory(&model.config(), storage).caches / sequences as u64;
    let invariant = engine.invariant_sequences();
    let failed = |source| ServeError::Engine { model: name.clone(), source };
    let engine = TextEngine::over(engine, shared.tokenizer.clone()).map_err(failed)?;
    let failed = |error| ServeError::Scorer { model: name.clone(), source: Box::new(error) };
    let scorer = Scorer::new(&model).with_context(tokens).map_err(failed)?;
    let scorer = scorer.with_batch_tokens(SCORED_TOGETHER).map_err(failed)?;
    let mut scorer = scorer.with_alignment(Alignment::Published);
    if options.cache != CacheFormat::F32 {
        // models with a T5 token decoder score whole sequences
        scorer = scorer.clone().with_cache(options.cache).unwrap_or(scorer);
    }
    // on devices where no rows are invariant, prompts are scored together like sequences are decoded together
    let scores_alone = model.batch_invariant_rows().is_some_and(|rows| rows != usize::MAX);
    drop(model);
    let texts = TokenTexts::new(&shared.tokenizer, shared.facts.vocab);
    shared.metrics.slots.set(sequences as i64);
    let loaded = Loaded { slots: sequences, slot_bytes, invariant, texts };
    shared.loaded.set(loaded).expect("a model is loaded once");
    let time = start.elapsed();
    let notice = Notice::Loaded { model: name, sequences, tokens, slot_bytes, invariant, time };
    let _ = events.send(EngineEvent::Loaded(notice));
    let scorer = (scorer, scores_alone);
    let mut worker =
        Worker::new(engine, scorer, shared.clone(), commands, queue_timeout, options.on_step);
    let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
    if !matches!(ended, Ok(Ok(()))) {
        // before its requests notice that nothing follows
        shared.fail();
    }
    drop(worker);
    ended.unwrap_or_else(|payload| resume_unwind(payload))
}
