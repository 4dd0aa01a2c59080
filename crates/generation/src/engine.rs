//! Decodes many sequences of token ids together.

use std::sync::Arc;

use block_transformer_family::{CacheFormat, Family, FamilyConfig, Work};
use block_transformer_layers::{KvCache, is_attention_batch_invariant};
use block_transformer_text::EOS;
use burn::tensor::Device;

use crate::choose::choose;
use crate::error::GenerationError;
use crate::event::{Event, SequenceId};
use crate::limits::Limits;
use crate::options::Options;
use crate::prefixes::{HeadBytes, PrefixCounts, Prefixes};
use crate::prompts::prefill_budget;
use crate::runner::Runner;
use crate::scheduler::{Scheduler, SchedulerOutput};
use crate::speculation::{NGrams, Speculate, Speculation, SpeculationCounts, SpeculationSizes};

/// Decodes many sequences of token ids together. Sequences can be submitted, finish or be
/// cancelled at any time.
///
/// All memory is allocated by [`new`](Self::new). A submitted sequence waits for a free slot and
/// for the start of a block; a sequence that ends frees its slot at once.
///
/// On burn-flex, the tokens of a sequence and the bits of its logits do not depend on the other
/// sequences, as long as no matrix product has more than [`Family::batch_invariant_rows`] rows (sequences
/// times prefix vectors); there is no limit for a [prepared](Family::prepared) model whose matrices all have a
/// multiple of 16 columns and whose LM head is a matrix of its own. With more rows, and on other devices, the
/// logits differ by rounding. [`invariant_sequences`](Self::invariant_sequences) is the number of sequences for which
/// this holds.
///
/// ```no_run
/// # use burn::tensor::Device;
/// # use block_transformer_generation::{Engine, Event, Limits, Options};
/// # fn f(device: Device) -> Result<(), Box<dyn std::error::Error>> {
/// let model = block_transformer_zoo::preset("block-33m")?.model.init(0, &device);
/// let limits = Limits { max_sequences: 8, max_tokens: 256 };
/// let mut engine = Engine::new(&model, limits, &device)?;
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
    runner: Runner,
    speculation: Option<Speculation>,
    speculation_sizes: Option<SpeculationSizes>,
    ngrams: Option<Arc<NGrams>>,
    limits: Limits,
    block_length: usize,
    /// Positions of the context stack per block.
    per_block: usize,
    /// Rows of the largest matrix product of a step, per sequence.
    rows: usize,
    vocab_size: usize,
}

impl Engine {
    /// Creates an engine for `model` with KV caches in f32. The model must be on `device`; a model on
    /// an autodiff device is used with its current weights and without autodiff.
    ///
    /// # Errors
    /// [`GenerationError::NoRoom`] when `limits` leave no room for a sequence.
    pub fn new<M: Family>(
        model: &M,
        limits: Limits,
        device: &Device,
    ) -> Result<Self, GenerationError> {
        Self::with_cache(model, limits, CacheFormat::F32, device)
    }

    /// Creates an engine like [`new`](Self::new), with KV caches in the format `cache`. burn's ndarray
    /// backend has f32 only, and only burn-flex has integers. A T5 token decoder has f32 instead of
    /// integers.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new), and [`GenerationError::IntegerCache`].
    pub fn with_cache<M: Family>(
        model: &M,
        limits: Limits,
        cache: CacheFormat,
        device: &Device,
    ) -> Result<Self, GenerationError> {
        limits.check()?;
        if cache == CacheFormat::Int8
            && !is_attention_batch_invariant(&device.clone().without_autodiff())
        {
            return Err(GenerationError::IntegerCache);
        }
        let config = model.config();
        let runner = Runner::new(model, limits, cache, device);
        let per_block = config.stacks().embeddings_per_block;
        let prompts = (prefill_budget(runner.device()) / per_block).max(1);
        let mut scheduler = Scheduler::new(config.block_length(), limits.max_sequences, prompts);
        scheduler.prefixes = Prefixes::new(HeadBytes::new(&config, cache));
        Ok(Self {
            scheduler,
            per_block,
            speculation: None,
            ngrams: None,
            speculation_sizes: speculation_sizes(&runner, &config, limits),
            runner,
            limits,
            block_length: config.block_length(),
            rows: config.stacks().step_rows(),
            vocab_size: config.vocab_size(),
        })
    }

    /// Keeps the caches of prefixes in up to `bytes` bytes of memory, in addition to those of
    /// [`Limits::memory`]. If they do not suffice, the prefixes that were used least recently make room for
    /// others, except those that a sequence waits for. By default, these are 0 bytes, and a prefix is shared only by
    /// sequences that have a slot at the same time.
    ///
    /// A prefix takes [`CacheFormat::bytes`] for each of its positions in the context stack, and the f32 states of the
    /// positions of its last block.
    pub fn with_prefixes(mut self, bytes: u64) -> Self {
        self.scheduler.prefixes.set_budget(bytes);
        self
    }

    /// Returns the counts of prefixes and prompts that sequences share.
    pub fn prefixes(&self) -> PrefixCounts {
        self.scheduler.prefixes.counts(self.per_block)
    }

    /// The largest number of sequences for which the tokens and the bits of the logits of each are the same
    /// alone and together: [`Family::batch_invariant_rows`] divided by the rows that the largest matrix product
    /// of a step has for each sequence. It is `usize::MAX` if there is no limit, and `None` on devices on which
    /// logits of several sequences differ from those of one by rounding.
    pub fn invariant_sequences(&self) -> Option<usize> {
        let rows = self.runner.invariant_rows();
        let rows = rows.filter(|_| is_attention_batch_invariant(self.runner.device()))?;
        Some(if rows == usize::MAX { rows } else { (rows / self.rows).max(1) })
    }

    /// Turns the capture of decoded blocks as graphs of the device on or off. By default, it is on for
    /// devices that replay a graph in one launch (CUDA). Other devices ignore it, except wgpu, which
    /// can record graphs too. While a graph is captured, no other thread may use the device.
    pub fn with_graphs(mut self, on: bool) -> Self {
        self.runner.set_graphs(on);
        self
    }

    /// Limits the delay that prompts cause: while sequences are decoded, a step runs at most `positions` positions
    /// of prompts (blocks times embeddings per block; tokens of a vanilla model), at least one block. By
    /// default, these are 256 on a processor and 2048 on a GPU. If no sequence is decoded, a step runs all
    /// prompts that have a slot.
    pub fn with_prefill_budget(mut self, positions: usize) -> Self {
        self.scheduler.set_prompt_blocks(positions / self.per_block);
        self
    }

    /// Guesses the next tokens of sequences from n-grams that they contain already, and verifies them
    /// together. The tokens stay the same; text that repeats itself is decoded faster. A step then decodes
    /// at least a block of every sequence, and caches of the token decoder can be allocated in a step. By
    /// default, nothing is guessed.
    ///
    /// [`Speculate::Auto`] is ignored where guesses are not [supported](Self::speculates).
    ///
    /// # Errors
    /// [`GenerationError::Speculation`] for [`Speculate::Tokens`] where guesses are not supported.
    pub fn with_speculation(mut self, speculate: Speculate) -> Result<Self, GenerationError> {
        self.speculation = match (self.speculation_sizes, speculate) {
            (None, Speculate::Tokens(1..)) => return Err(GenerationError::Speculation),
            (sizes, speculate) => sizes.and_then(|sizes| Speculation::new(speculate, sizes)),
        };
        self.guess_from_ngrams();
        Ok(self)
    }

    /// Guesses tokens from the n-grams of a corpus too, where more tokens match there than in the sequence. They are
    /// ignored if nothing is guessed.
    ///
    /// # Errors
    /// [`GenerationError::NGrams`] when the model has no embedding for an id.
    pub fn with_ngrams(mut self, ngrams: Arc<NGrams>) -> Result<Self, GenerationError> {
        let (id, vocab) = (ngrams.largest_id(), self.vocab_size);
        if id as usize >= vocab {
            return Err(GenerationError::NGrams { id, vocab });
        }
        self.ngrams = Some(ngrams);
        self.guess_from_ngrams();
        Ok(self)
    }

    fn guess_from_ngrams(&mut self) {
        if let (Some(speculation), Some(ngrams)) = (&mut self.speculation, &self.ngrams) {
            speculation.set_ngrams(Arc::clone(ngrams));
        }
    }

    /// Whether guesses can be verified: on burn-flex, for models whose token decoder is not a T5 stack.
    /// Elsewhere, logits of several tokens in one pass differ by rounding from those one by one.
    pub fn speculates(&self) -> bool {
        self.speculation_sizes.is_some()
    }

    /// The counts of guesses; `None` if nothing is guessed.
    pub fn speculation(&self) -> Option<SpeculationCounts> {
        self.speculation.as_ref().map(Speculation::counts)
    }

    /// Whether the graph that was used last is one that the device replays itself, in one launch on CUDA.
    pub fn replays(&self) -> bool {
        self.runner.replayed()
    }

    /// The number of ids of the model.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Queues a prompt; an empty prompt becomes one [`EOS`].
    ///
    /// # Errors
    /// When an option is out of its range, the model has no embedding for an id, or prompt and
    /// continuation have more tokens than [`Limits::max_tokens`].
    pub fn submit(
        &mut self,
        prompt: &[u32],
        options: &Options,
    ) -> Result<SequenceId, GenerationError> {
        self.submit_after(0, prompt, options)
    }

    /// Queues a prompt after `context` tokens (rounded up to whole blocks) that are not computed:
    /// the sequence attends to the present contents of its slot. With
    /// [`fill_random`](Self::fill_random), benchmarks decode after a long context without a
    /// prefill.
    ///
    /// # Errors
    /// The errors of [`submit`](Self::submit).
    pub fn submit_after(
        &mut self,
        context: usize,
        prompt: &[u32],
        options: &Options,
    ) -> Result<SequenceId, GenerationError> {
        let prompt = if prompt.is_empty() { vec![EOS] } else { prompt.to_vec() };
        let before = context.div_ceil(self.block_length);
        self.check(before, &prompt, options)?;
        Ok(self.scheduler.submit(prompt, before, options))
    }

    /// Checks a prompt after `before` blocks.
    fn check(
        &self,
        before: usize,
        prompt: &[u32],
        options: &Options,
    ) -> Result<(), GenerationError> {
        options.check()?;
        let (number, vocab) = (options.rng_stream, self.vocab_size);
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocab) {
            return Err(GenerationError::PromptId { prompt: number, id, vocab });
        }
        let known = options.allowed_vocab.map_or(vocab, |allowed| allowed.min(vocab));
        if let Some(&(id, _)) = options.logit_bias.iter().find(|(id, _)| *id as usize >= known) {
            return Err(GenerationError::LogitBiasId { id, vocab: known });
        }
        let known = before.saturating_mul(self.block_length).saturating_add(prompt.len());
        let tokens = known.saturating_add(options.max_tokens);
        if tokens > self.limits.max_tokens {
            let limit = self.limits.max_tokens;
            return Err(GenerationError::TooLong { prompt: number, tokens, limit });
        }
        Ok(())
    }

    /// Queues a sequence for each of `options`, all of them with the same prompt after the same prefix. Prefix and
    /// prompt are run once for all of them. While some of these sequences wait for a slot, a copy of the cache of
    /// prefix and prompt is in memory; there is at most one such copy.
    ///
    /// The prefix is padded on its own to whole blocks, so that the prompt starts with a block of its own. Its cache
    /// is [kept](Self::with_prefixes), and other sequences with the same prefix start from it, with the same bits as
    /// if it were run for them. The prompt can be empty if there is a prefix. Padding of the prefix counts as tokens
    /// of the sequence. A model without blocks has no padding.
    ///
    /// # Errors
    /// The errors of [`submit`](Self::submit); then nothing is queued.
    pub fn submit_choices(
        &mut self,
        prefix: &[u32],
        prompt: &[u32],
        options: &[Options],
    ) -> Result<Vec<SequenceId>, GenerationError> {
        let nothing = prefix.is_empty() && prompt.is_empty();
        let prompt = if nothing { &[EOS] } else { prompt };
        for options in options {
            self.check(0, prefix, &Options { max_tokens: 0, ..options.clone() })?;
            self.check(prefix.len().div_ceil(self.block_length), prompt, options)?;
        }
        Ok(self.scheduler.submit_choices(prefix, prompt, options))
    }

    /// Removes a waiting or running sequence and frees its slot; no event of it follows. Returns
    /// false if the sequence has already ended.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        self.scheduler.cancel(id)
    }

    /// Decodes one token of every sequence whose prompt has been run, and returns the events of this step. On a
    /// device that chooses tokens itself (CubeCL), a step decodes a whole block, so that the device is
    /// read once per block; a cancellation takes effect at the next block. Such a device does not apply
    /// `min_p`, penalties and bias, and does not report log-probabilities: while a sequence with one of them is
    /// decoded, the host chooses its tokens, so that the device is read once per token, and captured blocks are not
    /// used. The device still draws the tokens of the other sequences, with the same random numbers.
    /// [Guesses](Self::with_speculation) have steps of one or more blocks too.
    ///
    /// # Errors
    /// [`GenerationError::Device`] when the logits cannot be read. The engine cannot be used
    /// further.
    pub fn step(&mut self) -> Result<Vec<Event>, GenerationError> {
        let mut events = self.scheduler.take_ended();
        if let Some(planned) = self.scheduler.plan() {
            match &planned {
                SchedulerOutput::Start { finished, prompts } if self.runner.chooses() => {
                    let started = self.runner.start_block(finished, prompts);
                    let (slots, mut samplers) = (self.scheduler.slots(), self.scheduler.samplers());
                    let chosen = self.runner.finish_block(started, slots, &mut samplers)?;
                    self.scheduler.settle_block(chosen, &mut events);
                }
                SchedulerOutput::Start { finished, prompts } if self.speculation.is_some() => {
                    let speculation = self.speculation.as_mut().expect("it was just checked");
                    let rows = speculation.plan(finished, &prompts.new);
                    let pass = speculation.start(&mut self.runner, (finished, prompts), &rows);
                    let chosen =
                        speculation.finish(&mut self.runner, pass, &rows, self.scheduler.rows())?;
                    self.scheduler.settle_runs(chosen, &mut events);
                }
                planned => {
                    let logits = self.runner.run(planned);
                    let chosen = choose(logits, &mut self.scheduler.samplers())?;
                    self.scheduler.settle(chosen, &mut events);
                }
            }
        }
        Ok(events)
    }

    /// Returns whether every sequence has ended and every end was reported.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Returns the number of sequences that have a slot.
    pub fn running(&self) -> usize {
        self.scheduler.running()
    }

    /// Returns the number of sequences that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.scheduler.waiting()
    }

    /// Returns counts of the work done since the engine was created.
    pub fn work(&self) -> Work {
        self.runner.decoding().work()
    }

    /// Fills every slot with the same random keys and values, for benchmarks. Running sequences
    /// lose their contexts.
    pub fn fill_random(&mut self) {
        self.runner.decoding().context_cache().iter_mut().for_each(KvCache::fill_random);
    }
}

/// The sizes of guesses; `None` where they cannot be verified.
fn speculation_sizes<C: FamilyConfig>(
    runner: &Runner,
    config: &C,
    limits: Limits,
) -> Option<SpeculationSizes> {
    let rows = runner.invariant_rows().filter(|_| is_attention_batch_invariant(runner.device()))?;
    runner.decoding().speculative()?;
    let stacks = config.stacks();
    Some(SpeculationSizes {
        block_length: config.block_length(),
        per_block: stacks.embeddings_per_block,
        append_rows: stacks.append_rows(),
        first: stacks.token.map_or(1, |token| token.first_positions()),
        blocks: limits.cached_blocks(config),
        rows,
    })
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}
