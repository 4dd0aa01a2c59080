//! Continues prompts of token ids.

use std::ops::ControlFlow;

use block_transformer_family::Family;
use burn::tensor::Device;

use crate::engine::Engine;
use crate::error::GenerationError;
use crate::event::{Event, Finish};
use crate::limits::Limits;
use crate::options::Options;

/// Continues all prompts together, and returns the new ids of each prompt without the EOS that
/// ended it. Use an [`Engine`] to decode fewer prompts at a time.
///
/// `on_token` receives the index of a prompt and its next id; [`ControlFlow::Break`] ends that
/// sequence. The model must be on `device`; a model on an autodiff device is used without autodiff.
///
/// # Errors
/// When an option is out of its range, a prompt does not fit the model, or the logits are not
/// finite.
pub fn generate<M: Family>(
    model: &M,
    prompts: &[Vec<u32>],
    options: &Options,
    device: &Device,
    mut on_token: impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Vec<u32>>, GenerationError> {
    let limits =
        Limits { max_sequences: prompts.len().max(1), max_tokens: longest(prompts, options)? };
    let mut engine = Engine::new(model, limits, device)?;
    for (index, prompt) in prompts.iter().enumerate() {
        engine.submit(prompt, &options.for_prompt(index))?;
    }
    let mut continuations = vec![Vec::new(); prompts.len()];
    let mut cancelled = vec![false; prompts.len()];
    while !engine.is_idle() {
        for event in engine.step()? {
            let id = event.id();
            let index = id.index();
            if cancelled[index] {
                continue;
            }
            match event {
                Event::Token { token, .. } => {
                    continuations[index].push(token);
                    if on_token(index, token).is_break() {
                        // a step can return more tokens of the sequence
                        cancelled[index] = true;
                        engine.cancel(id);
                    }
                }
                Event::Finished { reason: Finish::NotFinite, .. } => {
                    return Err(GenerationError::NotFinite { prompt: options.rng_stream + index });
                }
                Event::Finished { .. } => {}
            }
        }
    }
    Ok(continuations)
}

/// Returns the maximum number of tokens of a prompt and its continuation, at least 2.
pub(crate) fn longest(prompts: &[Vec<u32>], options: &Options) -> Result<usize, GenerationError> {
    let prompt = prompts.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let total = prompt.checked_add(options.max_tokens).filter(|&total| total <= i32::MAX as usize);
    Ok(total.ok_or(GenerationError::MaxTokens(options.max_tokens))?.max(2))
}
