//! Generates many texts in one batch.

use std::collections::HashMap;
use std::sync::Arc;

use block_transformer_family::Family;
use block_transformer_layers::TokenLogProbs;
use block_transformer_text::{StreamDecoder, Tokenizer};
use burn::tensor::Device;

use crate::engine::Engine;
use crate::error::GenerationError;
use crate::event::{Event, Finish, SequenceId};
use crate::limits::Limits;
use crate::options::Options;
use crate::stop::StopFilter;

/// Generates many texts in one batch. It adds a tokenizer, streaming text and stop strings to an
/// [`Engine`].
///
/// Texts can be submitted, finish or be cancelled at any time. The engine owns everything it
/// needs, so that a server can run it on a thread of its own.
///
/// ```no_run
/// # use burn::tensor::Device;
/// # use block_transformer_generation::{Limits, Options, TextEngine};
/// # use block_transformer_text::Tokenizer;
/// # fn f(device: Device) -> Result<(), Box<dyn std::error::Error>> {
/// let model = block_transformer_zoo::preset("block-33m")?.model.init(0, &device);
/// let limits = Limits { max_sequences: 8, max_tokens: 256 };
/// let mut engine = TextEngine::new(&model, Tokenizer::Bytes, limits, &device)?;
/// engine.submit("Once upon a time", &Options::default(), &["\n\n".into()])?;
/// while !engine.is_idle() {
///     for event in engine.step()? {
///         print!("{}", event.text);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TextEngine {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    tokenizer_vocab: usize,
    streams: HashMap<SequenceId, TextStream>,
    cancelled: Vec<TextEvent>,
}

/// New text of a sequence, or its end.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEvent {
    /// The sequence.
    pub id: SequenceId,
    /// New text: whole characters that are not part of a stop string. Only the last event can have
    /// an empty text.
    pub text: String,
    /// Tokens decoded so far, including those of a stop string.
    pub tokens: usize,
    /// The tokens since the last event of the sequence, with their log-probabilities; also those of a stop string.
    /// Empty unless [`Options::logprobs`] asks for them.
    pub chosen: Vec<ChosenToken>,
    /// The reason why the sequence ended, in its last event.
    pub finish: Option<Finish>,
}

/// A token that the model chose.
#[derive(Clone, Debug, PartialEq)]
pub struct ChosenToken {
    /// The token.
    pub token: u32,
    /// Log-probabilities before temperature, bias and penalties.
    pub logprobs: Box<TokenLogProbs>,
}

impl TextEngine {
    /// Creates an engine for `model` and its `tokenizer`. The model must be on `device`.
    ///
    /// # Errors
    /// When the tokenizer has ids without an embedding, or `limits` leave no room for a sequence.
    pub fn new<M: Family>(
        model: &M,
        tokenizer: impl Into<Arc<Tokenizer>>,
        limits: Limits,
        device: &Device,
    ) -> Result<Self, GenerationError> {
        Self::over(Engine::new(model, limits, device)?, tokenizer)
    }

    /// Creates a text engine over `engine`.
    ///
    /// # Errors
    /// When the tokenizer has ids without an embedding.
    pub fn over(
        engine: Engine,
        tokenizer: impl Into<Arc<Tokenizer>>,
    ) -> Result<Self, GenerationError> {
        let tokenizer = tokenizer.into();
        let (ids, known) = (tokenizer.vocab_size(), engine.vocab_size());
        if ids > known {
            return Err(GenerationError::Vocabulary { tokenizer: ids, model: known });
        }
        Ok(Self {
            engine,
            tokenizer,
            tokenizer_vocab: ids,
            streams: HashMap::new(),
            cancelled: Vec::new(),
        })
    }

    /// Queues a prompt. It is continued until `options.eos`, one of the strings in `stop`, or
    /// `options.max_tokens`. `options.allowed_vocab` is replaced by the tokenizer's vocabulary.
    ///
    /// # Errors
    /// When an option is out of its range, a stop string is empty, the prompt cannot be encoded,
    /// or the prompt and `options.max_tokens` together exceed
    /// [`Limits::max_tokens`].
    pub fn submit(
        &mut self,
        prompt: &str,
        options: &Options,
        stop: &[String],
    ) -> Result<SequenceId, GenerationError> {
        let ids = self.tokenizer.encode(prompt)?;
        self.submit_ids(&ids, options, stop)
    }

    /// Queues a prompt that is already encoded.
    ///
    /// # Errors
    /// The errors of [`submit`](Self::submit), or when the model has no embedding for an id.
    pub fn submit_ids(
        &mut self,
        prompt: &[u32],
        options: &Options,
        stop: &[String],
    ) -> Result<SequenceId, GenerationError> {
        let ids = self.submit_choices(&[], prompt, std::slice::from_ref(options), stop)?;
        Ok(ids[0])
    }

    /// Queues a sequence for each of `options`, with the same prompt after the same prefix, like
    /// [`Engine::submit_choices`]. Both are already encoded.
    ///
    /// # Errors
    /// The errors of [`submit_ids`](Self::submit_ids); then nothing is queued.
    pub fn submit_choices(
        &mut self,
        prefix: &[u32],
        prompt: &[u32],
        options: &[Options],
        stop: &[String],
    ) -> Result<Vec<SequenceId>, GenerationError> {
        let filter = StopFilter::new(stop)?;
        let allowed_vocab = Some(self.tokenizer_vocab);
        let options: Vec<Options> =
            options.iter().map(|options| Options { allowed_vocab, ..options.clone() }).collect();
        let ids = self.engine.submit_choices(prefix, prompt, &options)?;
        for &id in &ids {
            let decoder = StreamDecoder::new(Arc::clone(&self.tokenizer));
            let (filter, chosen) = (filter.clone(), Vec::new());
            self.streams.insert(id, TextStream { decoder, filter, tokens: 0, chosen });
        }
        Ok(ids)
    }

    /// Ends a sequence. The next [`step`](Self::step) reports it as [`Finish::Cancelled`], without
    /// more text. Returns false if the sequence has already ended.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        let Some(TextStream { tokens, chosen, .. }) = self.streams.remove(&id) else {
            return false;
        };
        self.engine.cancel(id);
        let finish = Some(Finish::Cancelled);
        self.cancelled.push(TextEvent { id, text: String::new(), tokens, chosen, finish });
        true
    }

    /// Decodes one token of every sequence that has a slot, and returns the events: new text and
    /// finished sequences.
    ///
    /// # Errors
    /// The errors of [`Engine::step`].
    pub fn step(&mut self) -> Result<Vec<TextEvent>, GenerationError> {
        let stepped = self.engine.step()?;
        let mut events = std::mem::take(&mut self.cancelled);
        for event in stepped {
            let id = event.id();
            // there is no stream if the sequence's previous event completed a stop string
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let (text, finish) = match event {
                Event::Token { token, logprobs, .. } => {
                    stream.chosen.extend(logprobs.map(|logprobs| ChosenToken { token, logprobs }));
                    (stream.push(token), stream.filter.stopped().then_some(Finish::Stop))
                }
                Event::Finished { reason, .. } => (stream.rest(), Some(reason)),
            };
            if finish.is_some() || !text.is_empty() {
                let (tokens, chosen) = (stream.tokens, std::mem::take(&mut stream.chosen));
                events.push(TextEvent { id, text, tokens, chosen, finish });
            }
            if finish == Some(Finish::Stop) {
                self.engine.cancel(id);
            }
            if finish.is_some() {
                self.streams.remove(&id);
            }
        }
        Ok(events)
    }

    /// Returns whether every sequence has ended and every end was reported.
    pub fn is_idle(&self) -> bool {
        self.engine.is_idle() && self.cancelled.is_empty()
    }

    /// Returns the underlying engine, which reports the numbers of running and waiting sequences
    /// and the work done.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// The text of one sequence.
#[derive(Debug)]
struct TextStream {
    decoder: StreamDecoder<Arc<Tokenizer>>,
    filter: StopFilter,
    tokens: usize,
    /// The tokens since the last event, if their log-probabilities are asked for.
    chosen: Vec<ChosenToken>,
}

impl TextStream {
    /// Takes the next token and returns the text that is now complete.
    fn push(&mut self, token: u32) -> String {
        self.tokens += 1;
        let piece = self.decoder.push(token);
        self.filter.push(&piece)
    }

    /// Returns the text that was held back.
    fn rest(&mut self) -> String {
        self.filter.push(&self.decoder.finish()) + &self.filter.finish()
    }
}
