//! Token ids in, token ids out, for either family.

use std::collections::HashMap;
use std::ops::ControlFlow;

use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::tensor::Device;

use crate::{Engine, Event, Finish, GenerationError, Limits, Options};

/// Continues every prompt and returns the new ids, without the EOS that ended them.
///
/// `on_token` sees each new id with the index of its prompt; breaking ends that sequence. All are
/// decoded together; see [`Engine`] for fewer at a time.
///
/// The model must live on `device`. One in training is used as it stands, without autodiff.
///
/// # Errors
/// When an option or a prompt does not suit the model, or its logits are not finite.
pub fn generate(
    model: &LanguageModel,
    config: &ModelConfig,
    prompts: &[Vec<u32>],
    options: &Options,
    device: &Device,
    mut on_token: impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Vec<u32>>, GenerationError> {
    let limits = Limits { sequences: prompts.len().max(1), tokens: longest(prompts, options)? };
    let mut engine = Engine::new(model, config, limits, device)?;
    let mut written = vec![Vec::new(); prompts.len()];
    engine.run(prompts, options, |row, progress| match progress {
        Progress::Token(id) => {
            written[row].push(id);
            on_token(row, id)
        }
        Progress::Ended => ControlFlow::Continue(()),
    })?;
    Ok(written)
}

/// Tokens of the longest sequence that may come of `prompts`.
pub(crate) fn longest(prompts: &[Vec<u32>], options: &Options) -> Result<usize, GenerationError> {
    let prompt = prompts.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let total = prompt.checked_add(options.max_tokens).filter(|&total| total <= i32::MAX as usize);
    Ok(total.ok_or(GenerationError::MaxTokens(options.max_tokens))?.max(2))
}

/// What becomes of a prompt.
pub(crate) enum Progress {
    Token(u32),
    Ended,
}

impl Engine {
    /// Decodes `prompts` to their ends. Breaking at a token ends its sequence; breaking at an end
    /// leaves it at that for all others.
    pub(crate) fn run(
        &mut self,
        prompts: &[Vec<u32>],
        options: &Options,
        mut on_progress: impl FnMut(usize, Progress) -> ControlFlow<()>,
    ) -> Result<(), GenerationError> {
        let mut rows = HashMap::new();
        for (row, prompt) in prompts.iter().enumerate() {
            let first_prompt = options.first_prompt + row;
            let id = self.submit(prompt, &Options { first_prompt, ..options.clone() })?;
            rows.insert(id, row);
        }
        while !self.is_idle() {
            for event in self.step()? {
                let id = event.id();
                // it was ended by the token before
                let Some(&row) = rows.get(&id) else { continue };
                match event {
                    Event::Token { token, .. } => {
                        if on_progress(row, Progress::Token(token)).is_continue() {
                            continue;
                        }
                        self.cancel(id);
                    }
                    Event::Finished { reason: Finish::NotFinite, .. } => {
                        let prompt = options.first_prompt + row;
                        return Err(GenerationError::NotFinite { prompt });
                    }
                    Event::Finished { .. } => {}
                }
                rows.remove(&id);
                if on_progress(row, Progress::Ended).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
