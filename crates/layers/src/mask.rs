//! Attention masks.

use std::sync::Arc;

use block_transformer_kernels::{CausalMask, PerDevice};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::positions::Positions;

/// The score of a hidden key. It is finite, so that a query that sees no key has a finite output
/// and a finite (unused) gradient.
pub(crate) const MASKED_SCORE: f32 = -1e30;

/// The keys that each query may see: causal by groups of positions, with padding. The mask's
/// tensor is created only when it is needed.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    causal: CausalMask,
    queries: usize,
    /// Number of keys, from position 0 on.
    keys: usize,
    hidden: PerDevice<Option<Tensor<4, Bool>>>,
}

impl AttentionMask {
    fn new(causal: CausalMask, queries: usize, keys: usize) -> Self {
        Self { causal, queries, keys, hidden: PerDevice::default() }
    }

    /// The mask in the form that kernels take.
    pub(crate) fn causal(&self) -> &CausalMask {
        &self.causal
    }

    /// The mask of the last `keep` queries.
    pub(crate) fn last(&self, keep: usize) -> Self {
        if keep == self.queries {
            return self.clone();
        }
        Self::new(self.causal.after(self.queries - keep), keep, self.keys)
    }

    /// The mask as a tensor `[batch or 1, 1, queries, keys]`, true at hidden keys; `None` if no
    /// key is hidden.
    pub(crate) fn hidden(&self, device: &Device) -> Option<Tensor<4, Bool>> {
        self.hidden.get_or_make(device, || self.hidden_tensor(device))
    }

    fn hidden_tensor(&self, device: &Device) -> Option<Tensor<4, Bool>> {
        let (mask, queries, keys) = (&self.causal, self.queries, self.keys);
        let rows = mask.starts().len();
        let key_mask = mask.key_mask_tensor(device);
        // the first query of a row sees the fewest keys
        if key_mask.is_none() && (0..rows).all(|row| mask.visible_keys(row, 0, keys) == keys) {
            return None;
        }
        let batch = mask.key_mask().map_or(rows, |key_mask| key_mask.len() / keys);
        let shape = [batch, 1, queries, keys];
        let starts = mask.starts().tensor(device).reshape([rows, 1, 1, 1]);
        let offsets = Tensor::<1, Int>::arange(0..queries as i64, device);
        let positions = starts.expand([rows, 1, queries, 1])
            + offsets.reshape([1, 1, queries, 1]).expand([rows, 1, queries, 1]);
        let group = mask.group() as i64;
        let visible = (positions / group + 1) * group; // [rows, 1, queries, 1]
        let key = Tensor::<1, Int>::arange(0..keys as i64, device).reshape([1, 1, 1, keys]);
        let later = key.expand(shape).greater_equal(visible.expand(shape));
        Some(match key_mask {
            Some(key_mask) => {
                let padding = key_mask.bool_not().reshape([batch, 1, 1, keys]);
                later.bool_or(padding.expand(shape))
            }
            None => later,
        })
    }
}

/// The mask of `queries` positions starting at `at`, over keys from position 0 on. Positions
/// form groups of `group`. A query sees the keys of its own group and of all groups before it;
/// `group` 1 is the plain causal mask. The last query must be the last position of a group.
/// Otherwise its group contains positions of the cache that are not written yet.
///
/// `key_mask` (`[batch, keys]`, on the host) is false at keys that are padding.
pub fn causal_by_block(
    at: &Positions,
    queries: usize,
    group: usize,
    key_mask: Option<Arc<[bool]>>,
) -> AttentionMask {
    let key_mask = key_mask.filter(|mask| mask.contains(&false));
    let keys = at.end(queries);
    AttentionMask::new(CausalMask::new(at.starts(), group, key_mask), queries, keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the mask as text, `x` where a key is hidden.
    fn shown(mask: &AttentionMask, device: &Device) -> Vec<String> {
        let hidden = mask.hidden(device).unwrap();
        let [_, _, _, keys] = hidden.dims();
        let hidden: Vec<bool> = hidden.into_data().iter::<bool>().collect();
        let text =
            |row: &[bool]| row.iter().map(|&hidden| if hidden { 'x' } else { '.' }).collect();
        hidden.chunks(keys).map(text).collect()
    }

    #[test]
    fn hidden_keys_are_later_groups_and_padding() {
        #[expect(deprecated, reason = "supported for as long as burn has it")]
        for device in [Device::flex(), Device::ndarray()] {
            let plain = causal_by_block(&Positions::Same(1), 2, 1, None);
            assert_eq!(shown(&plain, &device), ["..x", "..."]);
            assert!(plain.last(1).hidden(&device).is_none());

            let starts = Positions::Slots { slots: vec![4, 2].into(), starts: vec![0, 2].into() };
            let groups = causal_by_block(&starts, 2, 2, None);
            assert_eq!(shown(&groups, &device), ["..xx", "..xx", "....", "...."]);

            let key_mask = [false, true, true, true, true, false];
            let padded = causal_by_block(&Positions::Same(0), 3, 1, Some(key_mask.into()));
            let expected = ["xxx", "x.x", "x..", ".xx", "..x", "..x"];
            assert_eq!(shown(&padded, &device), expected);
            // the same mask on the device with autodiff
            assert_eq!(shown(&padded, &device.autodiff()), expected);
        }
    }
}
