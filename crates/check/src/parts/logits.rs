//! The logits of a continuation, with caches and without them.

use block_transformer_generation::PAD;
use block_transformer_layers::{Positions, int_tensor};
use block_transformer_zoo::family::{CacheFormat, CacheRoom};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, PaddingMask, TokenBatch};
use burn::tensor::{Device, Tensor};

/// A prompt, padded on the left to whole blocks, and its continuation.
pub(super) struct Text<'a> {
    pub prompt: &'a [u32],
    pub continuation: &'a [u32],
    pub block_length: usize,
}

impl Text<'_> {
    /// Returns the padded prompt, and for each position whether it is a token.
    fn padded(&self) -> (Vec<u32>, Vec<bool>) {
        let left = self.prompt.len().next_multiple_of(self.block_length) - self.prompt.len();
        let ids = [vec![PAD; left], self.prompt.to_vec()].concat();
        let is_token = (0..ids.len()).map(|i| i >= left).collect();
        (ids, is_token)
    }

    /// Returns the logits from which each token of the continuation is chosen, `[tokens * vocab]`,
    /// from one pass over the whole text.
    pub(super) fn uncached(&self, model: &LanguageModel, device: &Device) -> Vec<f32> {
        let (mut ids, mut is_token) = self.padded();
        let start = ids.len() - self.block_length;
        ids.extend(self.continuation);
        is_token.resize(ids.len(), true);
        let time = ids.len().next_multiple_of(self.block_length);
        ids.resize(time, PAD);
        is_token.resize(time, false);
        let ids = int_tensor(ids, device).reshape([1, time]);
        let is_token = PaddingMask::new(is_token);
        let batch = TokenBatch { ids, is_token, block_length: self.block_length };
        let (logits, _) = model.predict(&batch);
        list(logits.narrow(1, start, self.continuation.len()))
    }

    /// Like [`uncached`](Self::uncached), block by block with caches in `format`, as an engine does.
    pub(super) fn cached(
        &self,
        model: &LanguageModel,
        format: CacheFormat,
        device: &Device,
    ) -> Vec<f32> {
        let length = self.block_length;
        let (ids, is_token) = self.padded();
        let blocks = (ids.len() + self.continuation.len()).div_ceil(length);
        let room = CacheRoom { slots: 1, blocks, format };
        let mut decoding = model.decoder(room, device);
        let at = |block| Positions::Slots { slots: vec![0].into(), starts: vec![block].into() };
        let mut append = {
            let prompt = ids.len() / length;
            (int_tensor(ids, device).reshape([1, prompt, length]), PaddingMask::new(is_token), 0)
        };
        let mut logits = Vec::new();
        let first = append.0.dims()[1];
        for (block, chosen) in (first..).zip(self.continuation.chunks(length)) {
            let states = decoding.append(append.0, &append.1, &at(append.2));
            logits.extend(list(decoding.start(states)));
            for &id in &chosen[..chosen.len() - 1] {
                logits.extend(list(decoding.decode(&[0], int_tensor([id], device))));
            }
            let mut whole = chosen.to_vec();
            whole.resize(length, PAD);
            let whole = int_tensor(whole, device).reshape([1, 1, length]);
            append = (whole, PaddingMask::full(), block);
        }
        logits
    }
}

fn list<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Returns how far the logit of each chosen id is below the largest one, at most.
pub(super) fn largest_gap(logits: &[f32], chosen: &[u32], config: &impl FamilyConfig) -> f64 {
    let rows = logits.chunks(config.vocab_size()).zip(chosen);
    let gaps = rows.map(|(row, &id)| {
        let most = row.iter().fold(f32::NEG_INFINITY, |most, &logit| most.max(logit));
        f64::from(most) - f64::from(row[id as usize])
    });
    gaps.fold(0.0, |most, gap| if gap.is_nan() || gap > most { gap } else { most })
}

/// Returns the largest difference of two lists; NaN if a value is NaN.
pub(super) fn largest_difference(ours: &[f32], theirs: &[f32]) -> f64 {
    let differences = ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    differences
        .fold(0.0, |most: f64, d| if most.is_nan() || d.is_nan() { f64::NAN } else { most.max(d) })
}

#[cfg(test)]
mod tests {
    use block_transformer_zoo::preset;

    use super::*;

    #[test]
    fn logits_with_and_without_caches_agree_and_another_continuation_changes_them() {
        let device = block_transformer_device::DeviceName::Flex.open().unwrap();
        for name in ["debug-block", "debug-vanilla"] {
            let config = &preset(name).unwrap().model;
            let model = config.init(0, &device);
            let prompt = [5, 6, 7, 8, 9];
            let text = |continuation| Text {
                prompt: &prompt,
                continuation,
                block_length: config.block_length(),
            };
            let continuation = [11, 12, 13, 14, 15, 16, 17];
            let uncached = text(&continuation).uncached(&model, &device);
            assert_eq!(uncached.len(), continuation.len() * config.vocab_size());
            let cached = text(&continuation).cached(&model, CacheFormat::F32, &device);
            assert!(largest_difference(&cached, &uncached) < 1e-5, "{name}");
            let other =
                text(&[11, 12, 99, 14, 15, 16, 17]).cached(&model, CacheFormat::F32, &device);
            assert!(largest_difference(&other, &uncached) > 1e-3, "{name}");
        }
    }

    #[test]
    fn a_chosen_id_below_the_largest_logit_has_a_gap() {
        let config = &preset("debug-vanilla").unwrap().model;
        let mut logits = vec![0.0; 2 * config.vocab_size()];
        logits[7] = 1.5;
        logits[config.vocab_size() + 3] = 2.0;
        assert_eq!(largest_gap(&logits, &[7, 3], config), 0.0);
        assert_eq!(largest_gap(&logits, &[7, 4], config), 2.0);
        logits[7] = f32::NAN;
        assert!(largest_gap(&logits, &[7, 3], config).is_nan());
        assert!(largest_difference(&[1.0, f32::NAN], &[1.0, 1.0]).is_nan());
        assert_eq!(largest_difference(&[1.0, 3.0], &[1.5, 1.0]), 2.0);
    }
}
