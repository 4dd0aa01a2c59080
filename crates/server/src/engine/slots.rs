//! The number of sequences that an engine decodes together.

use block_transformer_family::{Family, FamilyConfig, FloatFormat, StackShape};
use block_transformer_generation::{Engine, GenerationError, Limits, Storage};

use crate::config::{DEFAULT_SEQUENCES, EngineOptions};
use crate::engine::scoring::SCORED_TOGETHER;
use crate::error::ServeError;

/// Creates the engine of `model`.
///
/// # Errors
/// When the memory holds no sequence, or fewer than were asked for, or the engine cannot have the options.
pub(super) fn engine<M: Family>(
    name: &str,
    model: &M,
    options: &EngineOptions,
) -> Result<(Engine, Limits), ServeError> {
    let failed = |source| ServeError::Engine { model: name.into(), source };
    let most = limits(name, &model.config(), model.weight_bytes(), options)?;
    let (engine, limits) = match (build(model, most, options).map_err(failed)?, options.sequences) {
        // more than the default is for those who ask for it
        (engine, None) => match engine.invariant_sequences() {
            Some(invariant) if invariant < most.max_sequences => {
                // its caches are freed first
                drop(engine);
                let fewer = Limits { max_sequences: invariant.max(1), ..most };
                (build(model, fewer, options).map_err(failed)?, fewer)
            }
            _ => (engine, most),
        },
        (engine, Some(_)) => (engine, most),
    };
    Ok((engine, limits))
}

fn build<M: Family>(
    model: &M,
    limits: Limits,
    options: &EngineOptions,
) -> Result<Engine, GenerationError> {
    let engine = Engine::with_cache(model, limits, options.cache, &options.device)?;
    let engine = match options.graphs {
        Some(on) => engine.with_graphs(on),
        None => engine,
    };
    engine.with_prefixes(options.prefix_bytes).with_speculation(options.speculate)
}

/// The limits that the memory allows.
fn limits<C: FamilyConfig>(
    name: &str,
    config: &C,
    weight_bytes: u64,
    options: &EngineOptions,
) -> Result<Limits, ServeError> {
    let (wanted, tokens) = (options.sequences.unwrap_or(DEFAULT_SEQUENCES), options.max_tokens);
    let Some(memory) = options.memory else {
        return Ok(Limits { max_sequences: wanted, max_tokens: tokens });
    };
    let model = name.to_string();
    let storage = Storage::new(weight_bytes, options.cache).on(&options.device);
    let scores = scoring_bytes(config, tokens);
    let beside = options.prefix_bytes.saturating_add(scores);
    let room = memory.saturating_sub(beside);
    let limits = match Limits::that_fit(config, storage, tokens, wanted, room) {
        Ok(limits) => limits,
        Err(GenerationError::Memory { needed, weights, .. }) => {
            let (needed, prefixes) = (needed.saturating_add(beside), options.prefix_bytes);
            let all =
                ServeError::Memory { model, memory, tokens, needed, weights, prefixes, scores };
            return Err(all);
        }
        Err(source) => return Err(ServeError::Engine { model, source }),
    };
    let fit = limits.max_sequences;
    match options.sequences {
        Some(sequences) if fit < sequences => {
            Err(ServeError::Sequences { model, sequences, tokens, memory, fit })
        }
        _ => Ok(limits),
    }
}

/// The most logits in memory while prompts are scored.
const LOGITS: usize = 1 << 24;

/// Predicts the bytes of the temporary tensors while prompts are scored: the input and the output of attention and the
/// inner vectors of the MLP before and after its activation function for all positions of a batch in one layer, and a
/// part of the logits.
fn scoring_bytes<C: FamilyConfig>(config: &C, tokens: usize) -> u64 {
    let (stacks, tokens) = (config.stacks(), tokens.max(SCORED_TOGETHER));
    let blocks = tokens.div_ceil(stacks.block_length) as u64;
    let values = |positions: usize, stack: &StackShape| {
        (positions as u64) * (2 * stack.width + 2 * stack.mlp_width) as u64
    };
    let context = values(stacks.embeddings_per_block, &stacks.context);
    let token = stacks
        .token
        .map_or(0, |token| values(token.cached_positions(stacks.block_length), &token.stack));
    let logits = tokens.saturating_mul(stacks.vocab_size).min(LOGITS.max(stacks.vocab_size));
    let layer = blocks.saturating_mul(context.max(token));
    layer.saturating_add(logits as u64).saturating_mul(FloatFormat::F32.bytes() as u64)
}
