//! The work of training, and the share of a machine's peak that it uses.

use block_transformer_family::{CacheFormat, FamilyConfig};

use crate::phases::decode;
use crate::sizes::Sizes;

/// Returns the FLOPs of the model per token of training in sequences of `context` tokens: those of the
/// forward pass, and twice as many for the gradients. Activations that are computed again do not
/// count.
pub fn training_flops<C: FamilyConfig>(config: &C, context: usize) -> f64 {
    let sizes = Sizes { weights: 4.0, values: 4.0, cache: CacheFormat::F32 };
    // a token has the same products as in decoding, after half of the context on average
    3.0 * decode(config, 1, context / 2, sizes).total().flops()
}

/// The model FLOPs utilization of training (Chowdhery et al., arXiv 2204.02311): the share of the peak
/// that the arithmetic of the model uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mfu {
    flops_per_token: f64,
    peak: f64,
}

impl Mfu {
    /// The utilization of machines with `peak` FLOP/s together.
    pub fn new<C: FamilyConfig>(config: &C, context: usize, peak: f64) -> Self {
        Self { flops_per_token: training_flops(config, context), peak }
    }

    /// Returns the share for `rate` tokens per second, from 0 to 1.
    pub fn share(&self, rate: f64) -> f64 {
        self.flops_per_token * rate / self.peak
    }
}
