//! Parts of an optimizer step on a device.

/// A step of AdamW (Loshchilov and Hutter, arXiv 1711.05101) without its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// `1 - beta_1^t`, where `t` counts steps from 1.
    pub correction_1: f32,
    /// `1 - beta_2^t`.
    pub correction_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// The factor of the weights: 1 minus the learning rate times the weight decay.
    pub keep: f32,
    /// The learning rate.
    pub lr: f32,
    /// Whether there are no moments yet.
    pub is_first: bool,
}
