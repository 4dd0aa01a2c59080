//! New positions of a cache, with the rotation and the mask that the layers of a stack apply to them.

use block_transformer_kernels::{Indices, int_tensor};
use burn::tensor::Tensor;

use crate::mask::{AttentionMask, causal_by_block};
use crate::positions::Positions;
use crate::rotary::Rotary;

/// New positions of a cache, with their rotation and mask. All layers of a step share one value. Several
/// steps with the same positions can share it too, so that its tensors are copied to the device only
/// once.
#[derive(Clone, Debug)]
pub struct Places {
    pub(crate) at: Positions,
    pub(crate) slots: Indices,
    pub(crate) rotary: Rotary,
    pub(crate) mask: AttentionMask,
    /// Of rows with lengths of their own, the places of neighbouring rows of equal length.
    pub(crate) parts: Vec<Part>,
}

/// Neighbouring rows of equal length.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Positions per row.
    pub(crate) time: usize,
    pub(crate) places: Places,
}

impl Places {
    /// The places of `time` new positions in each of `rows` rows at `at`. They attend to each other causally by
    /// groups of `group` positions. `rotary` is the rotation of so many positions per row.
    pub fn new(
        at: Positions,
        [rows, time]: [usize; 2],
        group: usize,
        rotary: &dyn Fn(&Positions, usize) -> Rotary,
    ) -> Self {
        let parts = at.equal_rows().into_iter().map(|(at, time)| {
            let rows = at.starts().len();
            Part { time, places: Self::new(at, [rows, time], group, rotary) }
        });
        let parts = parts.collect();
        let (slots, mask) = (at.slots(rows), causal_by_block(&at, time, group, None));
        Self { rotary: rotary(&at, time), at, slots, mask, parts }
    }

    /// The last `keep` positions of each row of `x`, `[rows, keep, width]`.
    ///
    /// # Shapes
    /// - `x`: `[rows, time, width]`, or `[1, all positions, width]` for rows with lengths of their own
    pub(crate) fn last(&self, x: Tensor<3>, keep: usize) -> Tensor<3> {
        let [_, time, width] = x.dims();
        let Some(lengths) = self.at.lengths() else { return last(x, keep) };
        let last = self.at.last([1, time]).into_iter().flat_map(|last| last + 1 - keep..=last);
        let last = int_tensor(last, &x.device());
        x.select(1, last).reshape([lengths.len(), keep, width])
    }
}

/// The last `keep` positions of each row of `x` `[rows, time, width]`.
pub(crate) fn last(x: Tensor<3>, keep: usize) -> Tensor<3> {
    let [_, time, _] = x.dims();
    if keep < time { x.narrow(1, time - keep, keep) } else { x }
}
