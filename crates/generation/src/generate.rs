//! Token ids in, token ids out, for either family.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use zoo::{LanguageModel, ModelConfig};
use zoo_layers::Positions;

use crate::rows::Rows;
use crate::{GenerationError, Options, block, vanilla};

/// Continues every prompt and returns the new ids, without the EOS that ended them.
///
/// `on_token` sees each new id with the index of its prompt in the batch; breaking ends that row.
/// A row is what it would be alone, whatever else is in the batch. Rows that have ended are
/// computed until the last one ends, and ignored.
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
    on_token: impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Vec<u32>>, GenerationError> {
    options.check()?;
    let vocab = config.vocab_size();
    for (row, prompt) in prompts.iter().enumerate() {
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocab) {
            let prompt = options.first_prompt + row;
            return Err(GenerationError::PromptId { prompt, id, vocab });
        }
    }
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if longest.checked_add(options.max_tokens).is_none_or(|total| total > i32::MAX as usize) {
        return Err(GenerationError::MaxTokens(options.max_tokens));
    }
    let mut rows = Rows::new(prompts.len(), options, on_token);
    if !rows.ended() {
        // under autodiff every step would be recorded
        let (model, device) = (&model.valid(), &device.clone().without_autodiff());
        match (model, config) {
            (LanguageModel::Block(model), ModelConfig::Block(config)) => {
                block::decode(model, config.block_length, prompts, options, device, &mut rows)?;
            }
            (LanguageModel::Vanilla(model), ModelConfig::Vanilla(_)) => {
                vanilla::decode(model, prompts, options, device, &mut rows)?;
            }
            _ => return Err(GenerationError::Family(config.family())),
        }
    }
    Ok(rows.into_written())
}

/// A matrix of ids `[rows, width]`.
pub(crate) fn id_tensor(ids: &[u32], rows: usize, device: &Device) -> Tensor<2, Int> {
    let width = ids.len() / rows;
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(ids, [rows, width]), device)
}

/// Row `i`'s entry `lengths[i] - 1`.
///
/// # Shapes
/// - `x`: `[rows * width, d]`, `width` entries a row
/// - output: `[rows, d]`
pub(crate) fn last_entries(x: Tensor<2>, lengths: &[usize], width: usize) -> Tensor<2> {
    let at = lengths.iter().enumerate().map(|(row, length)| (row * width + length - 1) as i64);
    let at = TensorData::new(at.collect::<Vec<i64>>(), [lengths.len()]);
    let at = Tensor::<1, Int>::from_data(at, &x.device());
    x.select(0, at)
}

/// Where each row goes on; one position for all is the cheaper form.
pub(crate) fn positions(lengths: &[usize]) -> Positions {
    match lengths {
        [first, rest @ ..] if rest.iter().all(|length| length == first) => Positions::Same(*first),
        _ => Positions::PerRow(lengths.to_vec()),
    }
}
