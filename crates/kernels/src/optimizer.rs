//! Parts of an optimizer step on a device.

use burn::tensor::{Device, Tensor};

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
    /// The learning rate times the weight decay.
    pub decay: f32,
    /// The learning rate.
    pub lr: f32,
}

/// The sum of the squares of several tensors, with one launch per tensor.
#[derive(Debug)]
pub struct SquareSums {
    parts: Tensor<1>,
    used: usize,
}

impl SquareSums {
    /// Elements that are added by one group of threads.
    pub(crate) const ELEMENTS_PER_PART: usize = 1 << 16;

    /// Room for tensors with these numbers of elements on `device`.
    pub(crate) fn zeros(sizes: impl IntoIterator<Item = usize>, device: &Device) -> Self {
        let parts: usize =
            sizes.into_iter().map(|size| size.div_ceil(Self::ELEMENTS_PER_PART)).sum();
        Self { parts: Tensor::zeros([parts], device), used: 0 }
    }

    /// Adds the squares of `x`, which `kernel` writes to the parts from its third argument on.
    pub(crate) fn add_with<const D: usize>(
        &mut self,
        x: &Tensor<D>,
        kernel: impl FnOnce(&Tensor<D>, Tensor<1>, usize) -> Tensor<1>,
    ) {
        // the sums give up their reference, so that they can be written without a copy
        let placeholder = Tensor::zeros([1], &self.parts.device());
        let parts = std::mem::replace(&mut self.parts, placeholder);
        self.parts = kernel(x, parts, self.used);
        self.used += x.shape().num_elements().div_ceil(Self::ELEMENTS_PER_PART);
    }

    /// The sum, `[1]`.
    pub fn total(self) -> Tensor<1> {
        self.parts.sum()
    }
}
