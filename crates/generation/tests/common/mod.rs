//! Decoding without caches, as the reference for the engine.

use block_transformer_family::{Family, FamilyConfig, PaddingMask, TokenBatch};
use block_transformer_generation::{EOS, PAD, Sampler, Sampling};
use block_transformer_zoo::LanguageModel;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Continues a prompt, recomputing everything for each token.
pub(crate) fn uncached(
    model: &LanguageModel,
    prompt: &[u32],
    (sampling, rng_stream): (Sampling, usize),
    count: usize,
    device: &Device,
) -> Vec<u32> {
    let l = model.config().block_length();
    let prompt = if prompt.is_empty() { &[EOS] } else { prompt };
    let left = prompt.len().next_multiple_of(l) - prompt.len();
    let mut ids = [vec![PAD; left], prompt.to_vec()].concat();
    let first = ids.len();
    let mut sampler = Sampler::new(sampling, None, rng_stream);
    while ids.len() < first + count {
        // the rest of the block in progress is padding, to which no earlier token attends
        let time = (ids.len() + 1).next_multiple_of(l);
        let is_token = (0..time).map(|i| (left..ids.len()).contains(&i)).collect();
        let mut padded: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        padded.resize(time, i64::from(PAD));
        let batch = TokenBatch {
            ids: Tensor::<2, Int>::from_data(TensorData::new(padded, [1, time]), device),
            is_token: PaddingMask::new(is_token),
            block_length: l,
        };
        let (logits, _) = model.predict(&batch);
        let row = logits.narrow(1, ids.len() - l, 1).into_data();
        let row: Vec<f32> = row.iter::<f32>().collect();
        ids.push(sampler.choose(&row).unwrap());
    }
    ids.split_off(first)
}
