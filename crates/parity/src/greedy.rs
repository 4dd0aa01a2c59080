//! Greedy generation, with and without KV caches.

use block_transformer_generation::{Options, Sampling, generate};
use block_transformer_weights::HostTensor;
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, PaddingMask, TokenBatch};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::case::Case;
use crate::error::ParityError;
use crate::quantity::Quantity;

const PAD: i64 = 1;

/// Compares the recorded continuations with those of `model`.
pub(crate) fn compare(
    case: &Case,
    model: &LanguageModel,
    device: &Device,
) -> Result<Vec<Quantity>, ParityError> {
    // the recorded ids come from the published generation code, which uses other rotary positions
    let model = &match model.clone() {
        LanguageModel::Block(model) => LanguageModel::Block(model.with_published_positions()),
        vanilla => vanilla,
    };
    let (mut cached_wrong, mut uncached_wrong, mut cases) = (0, 0, 0);
    for (length, golden) in case.with_prefix("gen.greedy_") {
        let prompt = case.golden(&format!("gen.prompt_{length}"))?;
        let rows = |tensor: &HostTensor| -> Vec<Vec<u32>> {
            let ids = tensor.values.chunks(tensor.shape[1]);
            ids.map(|row| row.iter().map(|&v| v as u32).collect()).collect()
        };
        let (prompts, expected) = (rows(prompt), rows(golden));
        let count = golden.shape[1] - prompt.shape[1];
        let options = Options {
            sampling: Sampling::greedy(),
            max_tokens: count,
            eos: None,
            ..Options::default()
        };
        let go_on = |_, _| std::ops::ControlFlow::Continue(());
        let cached = generate(model, &prompts, &options, device, go_on)
            .map_err(|source| ParityError::Generation { case: case.name.clone(), source })?;
        for ((prompt, cached), expected) in prompts.iter().zip(&cached).zip(&expected) {
            let expected = &expected[prompt.len()..];
            cached_wrong += differing(cached, expected);
            let ours = uncached(model, case.config.block_length(), prompt, count, device);
            uncached_wrong += differing(&ours, expected);
        }
        cases += 1;
    }
    if cases == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![
        Quantity::new("greedy ids, uncached", uncached_wrong as f64, 0.0),
        Quantity::new("greedy ids, cached", cached_wrong as f64, 0.0),
    ])
}

fn differing(ours: &[u32], theirs: &[u32]) -> usize {
    ours.iter().zip(theirs).filter(|(a, b)| a != b).count() + ours.len().abs_diff(theirs.len())
}

/// Continues a prompt, recomputing everything for each token. The rest of an unfinished block is
/// padding, to which no earlier token attends.
fn uncached(
    model: &LanguageModel,
    block_length: usize,
    prompt: &[u32],
    count: usize,
    device: &Device,
) -> Vec<u32> {
    let left = prompt.len().next_multiple_of(block_length) - prompt.len();
    let mut ids: Vec<i64> = vec![PAD; left];
    ids.extend(prompt.iter().map(|&id| i64::from(id)));
    let start = ids.len();
    while ids.len() < start + count {
        // one block more than is known, to get the logits of its tokens
        let time = (ids.len() + 1).next_multiple_of(block_length);
        let mut padded = ids.clone();
        padded.resize(time, PAD);
        let is_token = (0..time).map(|i| (left..start.max(ids.len())).contains(&i)).collect();
        let tensor = Tensor::<2, Int>::from_data(TensorData::new(padded, [1, time]), device);
        let is_token = PaddingMask::new(is_token);
        let batch = TokenBatch { ids: tensor, is_token, block_length };
        let (logits, _) = model.predict(&batch);
        let at = ids.len() - block_length;
        let next = logits.narrow(1, at, 1).argmax(2).into_scalar::<i64>();
        ids.push(next);
    }
    ids[start..].iter().map(|&id| id as u32).collect()
}
