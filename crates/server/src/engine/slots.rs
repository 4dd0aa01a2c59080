//! The number of sequences that an engine decodes together.

use block_transformer_family::{Family, FamilyConfig};
use block_transformer_generation::{Engine, GenerationError, Limits, Storage};

use crate::config::{DEFAULT_SEQUENCES, EngineOptions};
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
    let storage = Storage::new(weight_bytes, options.cache).on(&options.device);
    let room = memory.saturating_sub(options.prefix_bytes);
    let limits = Limits::that_fit(config, storage, tokens, wanted, room)
        .map_err(|source| ServeError::Engine { model: name.into(), source })?;
    match options.sequences {
        Some(sequences) if limits.max_sequences < sequences => Err(ServeError::Sequences {
            model: name.into(),
            sequences,
            tokens,
            memory,
            fit: limits.max_sequences,
        }),
        _ => Ok(limits),
    }
}
