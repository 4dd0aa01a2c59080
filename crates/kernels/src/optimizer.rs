//! Parts of an optimizer step on a device.

use burn::tensor::{Device, Tensor};

#[cfg(feature = "cube")]
use crate::cube;
#[cfg(not(feature = "cube"))]
use crate::none as cube;

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

/// The sum of the squares of several tensors, with one launch per eight tensors.
#[derive(Debug)]
pub struct SquareSums {
    parts: Tensor<1>,
    used: usize,
    /// Tensors that are not added yet.
    waiting: Vec<Tensor<1>>,
}

impl SquareSums {
    /// Elements that are added by one group of threads.
    pub(crate) const ELEMENTS_PER_PART: usize = 1 << 16;
    /// Tensors per launch.
    pub(crate) const PER_LAUNCH: usize = 8;

    /// Room for tensors with these numbers of elements on `device`; `None` where no kernel applies.
    pub fn new(sizes: impl IntoIterator<Item = usize>, device: &Device) -> Option<Self> {
        let parts: usize =
            sizes.into_iter().map(|size| size.div_ceil(Self::ELEMENTS_PER_PART)).sum();
        let zeros = || Tensor::zeros([parts], device);
        cube::serves(device).then(|| Self { parts: zeros(), used: 0, waiting: Vec::new() })
    }

    /// Adds the squares of `x`.
    pub fn add<const D: usize>(&mut self, x: &Tensor<D>) {
        self.waiting.push(x.clone().reshape([x.shape().num_elements()]));
        if self.waiting.len() == Self::PER_LAUNCH {
            self.launch();
        }
    }

    fn launch(&mut self) {
        // the sums give up their reference, so that they can be written without a copy
        let placeholder = Tensor::zeros([1], &self.parts.device());
        let parts = std::mem::replace(&mut self.parts, placeholder);
        self.parts = cube::square_sums(&self.waiting, parts, self.used);
        let of = |x: Tensor<1>| x.shape().num_elements().div_ceil(Self::ELEMENTS_PER_PART);
        self.used += self.waiting.drain(..).map(of).sum::<usize>();
    }

    /// The sum, `[1]`.
    pub fn total(mut self) -> Tensor<1> {
        if !self.waiting.is_empty() {
            self.launch();
        }
        self.parts.sum()
    }
}
