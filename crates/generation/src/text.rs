//! Text in, text out, piece by piece.

use std::ops::ControlFlow;

use block_transformer_text::{StreamDecoder, Tokenizer};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig};
use burn::tensor::Device;

use crate::generate::{Progress, longest};
use crate::{Engine, GenerationError, Limits, Options, Sampling, StopFilter};

/// The temperature of samples nobody chose one for.
pub const SAMPLE_TEMPERATURE: f64 = 0.8;

/// A model with its tokenizer.
#[derive(Clone, Copy, Debug)]
pub struct TextGenerator<'a> {
    model: &'a LanguageModel,
    config: &'a ModelConfig,
    tokenizer: &'a Tokenizer,
    device: &'a Device,
    sequences: usize,
    memory: Option<u64>,
}

/// What comes of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// More of its text.
    Text(&'a str),
    /// All of it.
    End(&'a Completion),
}

/// What was written after a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The text, without the prompt and without the stop string that ended it.
    pub text: String,
    /// Tokens written, those of a stop string included.
    pub tokens: usize,
}

impl<'a> TextGenerator<'a> {
    /// The generator of `model`, which lives on `device`.
    ///
    /// # Errors
    /// When the tokenizer has ids the model does not know.
    pub fn new(
        model: &'a LanguageModel,
        config: &'a ModelConfig,
        tokenizer: &'a Tokenizer,
        device: &'a Device,
    ) -> Result<Self, GenerationError> {
        let (ids, known) = (tokenizer.vocab_size(), config.vocab_size());
        if ids > known {
            return Err(GenerationError::Vocabulary { tokenizer: ids, model: known });
        }
        let (sequences, memory) = (usize::MAX, None);
        Ok(Self { model, config, tokenizer, device, sequences, memory })
    }

    /// Decodes up to this many prompts at once, and no more than fit into so many bytes of memory,
    /// if given. What is written does not depend on either.
    pub fn with_room(mut self, sequences: usize, memory: Option<u64>) -> Self {
        (self.sequences, self.memory) = (sequences, memory);
        self
    }

    /// Continues every prompt until EOS, one of the strings `stop`, or `options.max_tokens`;
    /// `options.allowed_vocab` is the tokenizer's whatever it says.
    ///
    /// `on_text` sees each new piece of text with the index of its prompt, whole characters only
    /// and never any part of a stop string that completes; breaking ends that prompt's text.
    ///
    /// # Errors
    /// When an option is out of its range, a prompt cannot be encoded, there is too little memory,
    /// or the model's logits are not finite.
    pub fn generate(
        &self,
        prompts: &[String],
        options: &Options,
        stop: &[String],
        mut on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>, GenerationError> {
        let mut completions = vec![Completion::default(); prompts.len()];
        self.generate_each(prompts, options, stop, |row, piece| match piece {
            Piece::Text(text) => on_text(row, text),
            Piece::End(completion) => {
                completions[row] = completion.clone();
                ControlFlow::Continue(())
            }
        })?;
        Ok(completions)
    }

    /// The same for a receiver who also wants to know when a prompt's text has ended. Breaking there
    /// ends everything.
    ///
    /// # Errors
    /// Those of [`generate`](Self::generate).
    pub fn generate_each(
        &self,
        prompts: &[String],
        options: &Options,
        stop: &[String],
        mut on_piece: impl FnMut(usize, Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), GenerationError> {
        let allowed_vocab = Some(self.tokenizer.vocab_size());
        let options = Options { allowed_vocab, ..options.clone() };
        let ids = self.tokenizer.encode_batch(prompts)?;
        let filter = StopFilter::new(stop)?;
        let mut streams: Vec<Option<Stream<'_>>> =
            prompts.iter().map(|_| Some(Stream::new(self.tokenizer, filter.clone()))).collect();
        let mut engine = self.engine(&ids, &options)?;
        engine.run(&ids, &options, |row, progress| {
            let on_text = |text: &str| on_piece(row, Piece::Text(text));
            match (progress, &mut streams[row]) {
                (Progress::Token(id), Some(stream)) => stream.push(id, on_text),
                (Progress::Ended, stream) => {
                    let written = stream.take().map(|stream| stream.finish(on_text));
                    on_piece(row, Piece::End(&written.unwrap_or_default()))
                }
                (Progress::Token(_), None) => ControlFlow::Break(()),
            }
        })
    }

    fn engine(&self, prompts: &[Vec<u32>], options: &Options) -> Result<Engine, GenerationError> {
        let tokens = longest(prompts, options)?;
        let sequences = self.sequences.min(prompts.len()).max(1);
        let limits = match self.memory {
            Some(bytes) => {
                let weights = self.model.weight_bytes();
                Limits::that_fit(self.config, weights, tokens, sequences, bytes)?
            }
            None => Limits { sequences, tokens },
        };
        Engine::new(self.model, self.config, limits, self.device)
    }
}

/// The text of one prompt.
struct Stream<'a> {
    decoder: StreamDecoder<'a>,
    filter: StopFilter,
    given: Given,
}

/// What was passed on so far.
#[derive(Default)]
struct Given {
    completion: Completion,
    /// Whoever receives it wants no more.
    broken: bool,
}

impl<'a> Stream<'a> {
    fn new(tokenizer: &'a Tokenizer, filter: StopFilter) -> Self {
        let decoder = StreamDecoder::new(tokenizer);
        Self { decoder, filter, given: Given::default() }
    }

    fn push(&mut self, id: u32, on_text: impl FnOnce(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        self.given.completion.tokens += 1;
        let piece = self.decoder.push(id);
        let text = self.filter.push(&piece);
        self.given.give(&text, on_text);
        if self.given.broken || self.filter.stopped() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Passes on what was held back.
    fn finish(mut self, on_text: impl FnOnce(&str) -> ControlFlow<()>) -> Completion {
        let rest = self.filter.push(&self.decoder.finish()) + &self.filter.finish();
        self.given.give(&rest, on_text);
        self.given.completion
    }
}

impl Given {
    fn give(&mut self, text: &str, on_text: impl FnOnce(&str) -> ControlFlow<()>) {
        if !text.is_empty() && !self.broken {
            self.completion.text.push_str(text);
            self.broken = on_text(text).is_break();
        }
    }
}

/// What `model` writes after `prompt` at [`SAMPLE_TEMPERATURE`], without the prompt.
///
/// # Errors
/// As [`TextGenerator::new`] and [`TextGenerator::generate`].
pub fn sample_text(
    model: &LanguageModel,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    prompt: &str,
    max_tokens: usize,
    seed: u64,
    device: &Device,
) -> Result<String, GenerationError> {
    let generator = TextGenerator::new(model, config, tokenizer, device)?;
    let sampling = Sampling::at(SAMPLE_TEMPERATURE, seed);
    let options = Options { sampling, max_tokens, ..Options::default() };
    let prompts = [prompt.to_string()];
    let completions =
        generator.generate(&prompts, &options, &[], |_, _| ControlFlow::Continue(()))?;
    Ok(completions.into_iter().map(|completion| completion.text).collect())
}
