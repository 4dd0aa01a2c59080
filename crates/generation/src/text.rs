//! Continues prompts of text.

use std::ops::ControlFlow;
use std::sync::Arc;

use block_transformer_family::{CacheFormat, Family};
use block_transformer_text::Tokenizer;
use burn::tensor::Device;

use crate::engine::Engine;
use crate::error::GenerationError;
use crate::event::Finish;
use crate::generate::longest;
use crate::limits::{Limits, Storage};
use crate::options::Options;
use crate::sampling::Sampling;
use crate::speculation::{NGrams, Speculate, SpeculationCounts};
use crate::text_engine::{TextEngine, TextEvent};

/// Default sampling temperature of text.
pub const SAMPLE_TEMPERATURE: f64 = 0.8;

/// A model with its tokenizer, and the limits on prompts decoded together.
#[derive(Clone, Debug)]
pub struct TextGenerator<'a, M> {
    model: &'a M,
    tokenizer: Arc<Tokenizer>,
    device: &'a Device,
    max_sequences: usize,
    memory: Option<u64>,
    cache: CacheFormat,
    graphs: Option<bool>,
    speculate: Speculate,
    ngrams: Option<Arc<NGrams>>,
}

/// The continuation of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The text, without the prompt and without the stop string that ended it.
    pub text: String,
    /// Tokens decoded, including those of a stop string.
    pub tokens: usize,
    /// The reason why the continuation ended; `None` if generation was interrupted before that.
    pub finish: Option<Finish>,
}

/// The continuations of all prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completions {
    /// One per prompt, in order.
    pub all: Vec<Completion>,
    /// Counts of guessed tokens; `None` if nothing was guessed.
    pub speculation: Option<SpeculationCounts>,
}

impl<'a, M: Family> TextGenerator<'a, M> {
    /// Returns a generator for `model`, which must be on `device`, and its `tokenizer`.
    pub fn new(model: &'a M, tokenizer: impl Into<Arc<Tokenizer>>, device: &'a Device) -> Self {
        Self {
            model,
            tokenizer: tokenizer.into(),
            device,
            max_sequences: usize::MAX,
            memory: None,
            cache: CacheFormat::F32,
            graphs: None,
            speculate: Speculate::Off,
            ngrams: None,
        }
    }

    /// Limits the number of prompts decoded together to `max_sequences`, and to the number that
    /// fits into `memory` bytes. [`Engine`](crate::Engine) states when the completions
    /// do not depend on these limits.
    pub fn with_room(mut self, max_sequences: usize, memory: Option<u64>) -> Self {
        (self.max_sequences, self.memory) = (max_sequences, memory);
        self
    }

    /// Stores keys and values in the format `cache`. burn's ndarray backend has f32 only.
    pub fn with_cache(mut self, cache: CacheFormat) -> Self {
        self.cache = cache;
        self
    }

    /// Turns the capture of decoded blocks as graphs on or off; see
    /// [`Engine::with_graphs`](crate::Engine::with_graphs).
    pub fn with_graphs(mut self, on: bool) -> Self {
        self.graphs = Some(on);
        self
    }

    /// Guesses the next tokens; see [`Engine::with_speculation`](crate::Engine::with_speculation).
    pub fn with_speculation(mut self, speculate: Speculate) -> Self {
        self.speculate = speculate;
        self
    }

    /// Guesses tokens from a corpus too; see [`Engine::with_ngrams`](crate::Engine::with_ngrams).
    pub fn with_ngrams(mut self, ngrams: impl Into<Arc<NGrams>>) -> Self {
        self.ngrams = Some(ngrams.into());
        self
    }

    /// Continues every prompt until `options.eos`, one of the strings in `stop`, or
    /// `options.max_tokens`. `options.allowed_vocab` is replaced by the tokenizer's vocabulary.
    ///
    /// `on_event` receives the index of a prompt and each of its events; [`ControlFlow::Break`]
    /// ends all prompts, and the text so far is returned.
    ///
    /// # Errors
    /// When an option is out of its range, a prompt cannot be encoded, the tokenizer does not fit
    /// the model, there is too little memory, or the logits are not finite.
    pub fn generate(
        &self,
        prompts: &[String],
        options: &Options,
        stop: &[String],
        mut on_event: impl FnMut(usize, &TextEvent) -> ControlFlow<()>,
    ) -> Result<Completions, GenerationError> {
        let prompts = self.tokenizer.encode_batch(prompts)?;
        let limits = self.limits(&prompts, options)?;
        let engine = Engine::with_cache(self.model, limits, self.cache, self.device)?;
        let engine = match self.graphs {
            Some(on) => engine.with_graphs(on),
            None => engine,
        };
        let mut engine = engine.with_speculation(self.speculate)?;
        if let Some(ngrams) = &self.ngrams {
            engine = engine.with_ngrams(Arc::clone(ngrams))?;
        }
        let mut engine = TextEngine::over(engine, Arc::clone(&self.tokenizer))?;
        for (index, prompt) in prompts.iter().enumerate() {
            engine.submit_ids(prompt, &options.for_prompt(index), stop)?;
        }
        let mut all = vec![Completion::default(); prompts.len()];
        'steps: while !engine.is_idle() {
            for event in engine.step()? {
                let index = event.id.index();
                if event.finish == Some(Finish::NotFinite) {
                    return Err(GenerationError::NotFinite { prompt: options.rng_stream + index });
                }
                let completion = &mut all[index];
                completion.text.push_str(&event.text);
                (completion.tokens, completion.finish) = (event.tokens, event.finish);
                if on_event(index, &event).is_break() {
                    break 'steps;
                }
            }
        }
        Ok(Completions { all, speculation: engine.engine().speculation() })
    }

    fn limits(&self, prompts: &[Vec<u32>], options: &Options) -> Result<Limits, GenerationError> {
        let max_tokens = longest(prompts, options)?;
        let max_sequences = self.max_sequences.min(prompts.len()).max(1);
        let Some(bytes) = self.memory else { return Ok(Limits { max_sequences, max_tokens }) };
        let storage = Storage::new(self.model.weight_bytes(), self.cache).on(self.device);
        Limits::that_fit(&self.model.config(), storage, max_tokens, max_sequences, bytes)
    }
}

/// Returns a continuation of `prompt` at [`SAMPLE_TEMPERATURE`], without the prompt.
///
/// # Errors
/// The errors of [`TextGenerator::generate`].
pub fn sample_text<M: Family>(
    model: &M,
    tokenizer: impl Into<Arc<Tokenizer>>,
    prompt: &str,
    max_tokens: usize,
    seed: u64,
    device: &Device,
) -> Result<String, GenerationError> {
    let sampling = Sampling::at(SAMPLE_TEMPERATURE, seed);
    let options = Options { sampling, max_tokens, ..Options::default() };
    let generator = TextGenerator::new(model, tokenizer, device);
    let completions =
        generator.generate(&[prompt.into()], &options, &[], |_, _| ControlFlow::Continue(()))?;
    Ok(completions.all.into_iter().map(|completion| completion.text).collect())
}
