//! Attention masks. `true` means "may not be seen".

use burn::tensor::{Bool, Device, Tensor, TensorData};

use crate::Positions;

/// What a masked score is set to: finite, so that a row with nothing to see stays a number and
/// its (unused) output carries no NaN into the gradients.
pub(crate) const MASKED_SCORE: f32 = -1e30;

/// A mask over scores `[batch or 1, 1, queries, keys]`; `None` hides nothing.
pub type AttentionMask = Option<Tensor<4, Bool>>;

/// The mask of `queries` positions starting at `at`, over keys from position 0 on: position `i` sees
/// position `j` when `j`'s group of `group` consecutive positions is not after `i`'s. `group` 1 is
/// the plain causal mask. Keys a row has not written yet lie after its queries and stay hidden.
///
/// `seen` (`[batch, keys]`, `true` = real) hides keys that are padding.
///
/// # Shapes
/// output: `[batch or 1, 1, queries, keys]` with `keys = at.furthest() + queries`
pub fn causal_by_block(
    at: &Positions,
    queries: usize,
    group: usize,
    seen: Option<Tensor<2, Bool>>,
    device: &Device,
) -> AttentionMask {
    let keys = at.furthest() + queries;
    let starts = at.starts();
    let hidden: Vec<bool> = starts
        .iter()
        .flat_map(|&start| start..start + queries)
        .flat_map(|i| (0..keys).map(move |j| j / group > i / group))
        .collect();
    let causal = hidden.contains(&true).then(|| {
        let data = TensorData::new(hidden, [starts.len(), 1, queries, keys]);
        Tensor::<4, Bool>::from_data(data, device)
    });
    let padding = seen.map(|seen| {
        let [batch, keys] = seen.dims();
        seen.bool_not().reshape([batch, 1, 1, keys])
    });
    match (causal, padding) {
        (Some(causal), Some(padding)) => {
            let shape = [padding.dims()[0].max(starts.len()), 1, queries, keys];
            Some(causal.expand(shape).bool_or(padding.expand(shape)))
        }
        (Some(mask), None) => Some(mask),
        (None, padding) => padding,
    }
}
