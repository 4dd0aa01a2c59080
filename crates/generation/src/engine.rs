//! Many sequences at once, each as if it were alone.

use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig};
use burn::module::Module;
use burn::tensor::Device;

use crate::decoder::Decoder;
use crate::runner::Runner;
use crate::scheduler::Scheduler;
use crate::{EOS, GenerationError, Limits, Options, Work};

/// A sequence of an [`Engine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(crate) u64);

/// What became of a sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It goes on with this token.
    Token {
        /// Whose.
        id: SequenceId,
        /// The token.
        token: u32,
    },
    /// It has ended.
    Finished {
        /// Which.
        id: SequenceId,
        /// Why.
        reason: Finish,
    },
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It has as many tokens as were asked for.
    Length,
    /// The model wrote [`Options::eos`], which is not reported as a token.
    Eos,
    /// The model's logits are no numbers.
    NotFinite,
}

impl Event {
    /// The sequence it is about.
    pub fn id(&self) -> SequenceId {
        match self {
            Self::Token { id, .. } | Self::Finished { id, .. } => *id,
        }
    }
}

/// Decodes many sequences together: they may come, end and be cancelled at any time, and each gets
/// what it would get alone.
///
/// Everything is allocated when the engine is made. A sequence that comes in waits for a free slot,
/// and for the start of a block; one that ends leaves its slot at once. On burn-flex the tokens of a
/// sequence come from the same bits of logits whatever else is being decoded, as long as no product
/// has more than [`BATCH_INVARIANT_ROWS`](block_transformer_layers::BATCH_INVARIANT_ROWS) rows (that is,
/// sequences times prefix vectors); beyond that, and on other devices, from logits that differ by rounding.
///
/// ```no_run
/// # use burn::tensor::Device;
/// # use block_transformer_generation::{Engine, Event, Limits, Options};
/// # fn f(device: Device) -> Result<(), Box<dyn std::error::Error>> {
/// let config = &block_transformer_zoo::preset("block-33m")?.model;
/// let model = config.init(0, &device);
/// let mut engine = Engine::new(&model, config, Limits { sequences: 8, tokens: 256 }, &device)?;
/// engine.submit(&[12092, 1533], &Options::default())?;
/// while !engine.is_idle() {
///     for event in engine.step()? {
///         println!("{event:?}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Engine {
    scheduler: Scheduler,
    limits: Limits,
    vocab: usize,
}

impl Engine {
    /// An engine for `model`, of the shape `config` and on `device`, with room for what `limits`
    /// say. A model in training is used as it stands, without autodiff.
    ///
    /// # Errors
    /// When there is no room for anything, or model and configuration are of different families.
    pub fn new(
        model: &LanguageModel,
        config: &ModelConfig,
        limits: Limits,
        device: &Device,
    ) -> Result<Self, GenerationError> {
        limits.check()?;
        let scheduler = Scheduler::new(decoder(model, config, limits, device)?, limits.sequences);
        Ok(Self { scheduler, limits, vocab: config.vocab_size() })
    }

    /// Queues a prompt; one without tokens is [`EOS`].
    ///
    /// # Errors
    /// When an option or an id does not suit the model, or the sequence is longer than the limits.
    pub fn submit(
        &mut self,
        prompt: &[u32],
        options: &Options,
    ) -> Result<SequenceId, GenerationError> {
        self.submit_after(0, prompt, options)
    }

    /// The same behind `context` tokens that are not computed: the sequence sees what its slot
    /// happens to hold. With [`fill`](Self::fill) this is decoding at a depth without the time it
    /// takes to get there, for measuring. `context` is rounded up to whole blocks.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    pub fn submit_after(
        &mut self,
        context: usize,
        prompt: &[u32],
        options: &Options,
    ) -> Result<SequenceId, GenerationError> {
        options.check()?;
        let (number, vocab) = (options.first_prompt, self.vocab);
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocab) {
            return Err(GenerationError::PromptId { prompt: number, id, vocab });
        }
        let prompt = if prompt.is_empty() { vec![EOS] } else { prompt.to_vec() };
        let length = self.scheduler.decoder().block_length();
        let after = context.div_ceil(length);
        let known = after.saturating_mul(length).saturating_add(prompt.len());
        let (limit, tokens) = (self.limits.tokens, known.saturating_add(options.max_tokens));
        if tokens > limit {
            return Err(GenerationError::TooLong { prompt: number, tokens, limit });
        }
        Ok(self.scheduler.submit(prompt, after, options))
    }

    /// Drops a sequence that waits or is being decoded: nothing more is heard of it, and its slot is
    /// free. False if it has ended.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        self.scheduler.cancel(id)
    }

    /// Decodes one token of every sequence there is room for, and says what became of them.
    ///
    /// # Errors
    /// When results cannot be read from the device.
    pub fn step(&mut self) -> Result<Vec<Event>, GenerationError> {
        self.scheduler.step()
    }

    /// Whether every sequence has ended and was reported.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Sequences that are being decoded.
    pub fn running(&self) -> usize {
        self.scheduler.counts().0
    }

    /// Sequences that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.scheduler.counts().1
    }

    /// What has been computed so far.
    pub fn work(&self) -> Work {
        self.scheduler.decoder().work()
    }

    /// Gives every slot the same random keys and values; what is being decoded loses its context.
    pub fn fill(&mut self) {
        self.scheduler.decoder_mut().fill();
    }
}

/// What decodes `model`, with everything it needs allocated.
pub(crate) fn decoder(
    model: &LanguageModel,
    config: &ModelConfig,
    limits: Limits,
    device: &Device,
) -> Result<Box<dyn Decoder + Send>, GenerationError> {
    if model.config().family() != config.family() {
        return Err(GenerationError::Family(config.family()));
    }
    // under autodiff every step would be recorded
    let (model, device) = (model.valid(), device.clone().without_autodiff());
    let model = model.decoder(limits.sequences, limits.cached_blocks(config), &device);
    Ok(Box::new(Runner::new(model, &device)))
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}
