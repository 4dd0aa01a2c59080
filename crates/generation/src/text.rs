//! Text in, text out, piece by piece.

use std::ops::ControlFlow;

use burn::tensor::Device;
use zoo::{LanguageModel, ModelConfig};
use zoo_text::{StreamDecoder, Tokenizer};

use crate::{GenerationError, Options, Sampling, StopFilter, generate};

/// The temperature of samples nobody chose one for.
pub const SAMPLE_TEMPERATURE: f64 = 0.8;

/// A model with its tokenizer.
#[derive(Clone, Copy, Debug)]
pub struct TextGenerator<'a> {
    model: &'a LanguageModel,
    config: &'a ModelConfig,
    tokenizer: &'a Tokenizer,
    device: &'a Device,
}

/// What was written after a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        Ok(Self { model, config, tokenizer, device })
    }

    /// Continues every prompt until EOS, one of the strings `stop`, or `options.max_tokens`;
    /// `options.allowed_vocab` is the tokenizer's whatever it says.
    ///
    /// `on_text` sees each new piece of text with the index of its prompt, whole characters only
    /// and never any part of a stop string that completes; breaking ends that row.
    ///
    /// # Errors
    /// When an option is out of its range, a prompt cannot be encoded, or the model's logits are
    /// not finite.
    pub fn generate(
        &self,
        prompts: &[String],
        options: &Options,
        stop: &[String],
        mut on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>, GenerationError> {
        let allowed_vocab = Some(self.tokenizer.vocab_size());
        let options = Options { allowed_vocab, ..options.clone() };
        let ids = self.tokenizer.encode_batch(prompts)?;
        let filter = StopFilter::new(stop)?;
        let mut streams: Vec<Stream<'_>> =
            prompts.iter().map(|_| Stream::new(self.tokenizer, filter.clone())).collect();
        let written = generate(self.model, self.config, &ids, &options, self.device, |row, id| {
            streams[row].push(id, |text| on_text(row, text))
        })?;
        let mut completions = Vec::with_capacity(prompts.len());
        for (row, (stream, ids)) in streams.into_iter().zip(written).enumerate() {
            let text = stream.finish(|text| on_text(row, text));
            completions.push(Completion { text, tokens: ids.len() });
        }
        Ok(completions)
    }
}

/// The text of one row.
struct Stream<'a> {
    decoder: StreamDecoder<'a>,
    filter: StopFilter,
    given: Given,
}

/// The text passed on so far.
#[derive(Default)]
struct Given {
    text: String,
    /// Whoever receives it wants no more.
    broken: bool,
}

impl<'a> Stream<'a> {
    fn new(tokenizer: &'a Tokenizer, filter: StopFilter) -> Self {
        Self { decoder: StreamDecoder::new(tokenizer), filter, given: Given::default() }
    }

    fn push(&mut self, id: u32, on_text: impl FnOnce(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        let piece = self.decoder.push(id);
        let text = self.filter.push(&piece);
        self.given.give(&text, on_text);
        if self.given.broken || self.filter.stopped() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Passes on what was held back; returns the whole text.
    fn finish(mut self, on_text: impl FnOnce(&str) -> ControlFlow<()>) -> String {
        let rest = self.filter.push(&self.decoder.finish()) + &self.filter.finish();
        self.given.give(&rest, on_text);
        self.given.text
    }
}

impl Given {
    fn give(&mut self, text: &str, on_text: impl FnOnce(&str) -> ControlFlow<()>) {
        if !text.is_empty() && !self.broken {
            self.text.push_str(text);
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
