//! A model as the handlers of requests see it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};

use block_transformer_family::{CacheFormat, FamilyConfig};
use block_transformer_text::Tokenizer;

use crate::admission::{Admission, Ticket};
use crate::engine::Command;
use crate::error::ApiError;
use crate::metrics::ModelMetrics;
use crate::token_text::TokenTexts;

/// A served model.
pub(crate) struct Model {
    pub facts: Facts,
    pub tokenizer: Arc<Tokenizer>,
    pub metrics: ModelMetrics,
    /// Set when the model can be used.
    pub loaded: OnceLock<Loaded>,
    failed: AtomicBool,
    admission: Arc<Admission>,
    commands: Sender<Command>,
}

/// What is known of a model before it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub name: String,
    pub family: &'static str,
    pub block_length: usize,
    /// Ids with an embedding.
    pub vocab: usize,
    /// Ids that can be chosen, except padding.
    pub tokenizer_vocab: usize,
    /// Tokens of a sequence.
    pub max_tokens: usize,
    /// Bytes that texts of so many tokens have at the most, if it is known.
    pub max_text: Option<usize>,
    pub parameters: usize,
    /// Bytes of the caches per token of context.
    pub kv_bytes_per_token: f64,
    /// Identifies the weights; the same request with the same seed has the same answer from the same weights.
    pub fingerprint: Option<String>,
}

/// What is known of a model once it is loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Sequences decoded together.
    pub slots: usize,
    /// Bytes of the caches of a sequence.
    pub slot_bytes: u64,
    /// The largest number of sequences with the same tokens alone and together.
    pub invariant: Option<usize>,
    pub texts: TokenTexts,
}

impl Facts {
    pub(crate) fn new<C: FamilyConfig>(
        name: String,
        config: &C,
        tokenizer: &Tokenizer,
        max_tokens: usize,
        cache: CacheFormat,
    ) -> Self {
        let stacks = config.stacks();
        let per_block = stacks.embeddings_per_block * cache.bytes(&stacks.context);
        Self {
            name,
            family: config.family(),
            block_length: config.block_length(),
            vocab: config.vocab_size(),
            tokenizer_vocab: tokenizer.vocab_size(),
            max_tokens,
            max_text: tokenizer.longest_token().map(|bytes| bytes.saturating_mul(max_tokens)),
            parameters: config.num_params(),
            kv_bytes_per_token: per_block as f64 / config.block_length() as f64,
            fingerprint: None,
        }
    }
}

impl Model {
    pub(crate) fn new(
        facts: Facts,
        tokenizer: Arc<Tokenizer>,
        metrics: ModelMetrics,
        queue: usize,
        commands: Sender<Command>,
    ) -> Self {
        let admission = Arc::new(Admission::new(queue));
        let (loaded, failed) = (OnceLock::new(), AtomicBool::new(false));
        Self { facts, tokenizer, metrics, loaded, failed, admission, commands }
    }

    /// What is known once the model can be used.
    pub(crate) fn loaded(&self) -> Result<&Loaded, ApiError> {
        self.loaded.get().ok_or_else(ApiError::loading)
    }

    /// The engine has failed.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Checks that the model is loaded and its engine has not failed.
    pub(crate) fn check_usable(&self) -> Result<(), ApiError> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(ApiError::unusable());
        }
        self.loaded().map(drop)
    }

    /// Takes a place for each of `count` sequences.
    pub(crate) fn admit(&self, count: usize) -> Result<Vec<Ticket>, ApiError> {
        let slots = self.loaded()?.slots;
        self.admission.take(count, slots).map_err(|seconds| {
            self.metrics.rejected.with_label_values(&["queue_full"]).inc();
            ApiError::queue_full(seconds)
        })
    }

    /// Sends a command to the engine. If the engine has ended, the command and the sender of its answers are
    /// dropped, which its receiver notices.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}
