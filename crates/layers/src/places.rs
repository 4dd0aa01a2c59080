//! New positions of a cache, with the rotation and the mask that the layers of a stack apply to them.

use block_transformer_kernels::Indices;

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
}

impl Places {
    /// The places of `time` new positions in each of `rows` rows at `at`. They are rotated by
    /// `rotary`, and attend to each other causally by groups of `group` positions.
    pub fn new(at: Positions, [rows, time]: [usize; 2], group: usize, rotary: Rotary) -> Self {
        let (slots, mask) = (at.slots(rows), causal_by_block(&at, time, group, None));
        Self { at, slots, rotary, mask }
    }
}
