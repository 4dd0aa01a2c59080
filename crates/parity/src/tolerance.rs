//! Tolerances, derived from the arithmetic of matrix products.

use block_transformer_device::DeviceName;
use block_transformer_zoo::{FamilyConfig, ModelConfig, Precision};

/// Absolute tolerance of embeddings and logits in f32: rounding through a few layers.
const VALUES: f64 = 1e-4;
/// Absolute tolerance of losses in f32, which are means over many tokens.
const LOSSES: f64 = 1e-5;
/// Tolerance of the largest difference of a gradient in f32, relative to its largest element.
const GRADIENTS: f64 = 1e-4;

/// Relative error of an operand in TF32, which has 10 bits after the leading one: 2^-10, because
/// tensor cores may cut off the other bits of an f32 value instead of rounding.
const TF32: f64 = 1.0 / 1024.0;
/// Relative error of a value that is rounded to bf16, which has 7 bits after the leading one: 2^-8.
const BF16: f64 = 1.0 / 256.0;
/// Matrix products in a layer: queries with keys and values, scores, weighted values, output, and
/// two in the MLP.
const PER_LAYER: usize = 6;
/// Matrix products outside the layers: the embedder, the expansion of context embeddings and the LM
/// head.
const OUTSIDE: usize = 3;
/// Matrix products of the cross-attention of a layer: queries, keys with values, scores, weighted
/// values, output.
const CROSS_ATTENTION: usize = 5;
/// The largest of a million normally distributed errors, in standard deviations:
/// `sqrt(2 ln 1e6)`.
const LARGEST: f64 = 5.26;
/// The effect of one token on the gradient of a weight, relative to its largest element, if a unit
/// is active for 32 tokens of a recorded case: `1 / sqrt(32)`. The token decoder of T5 has ReLU,
/// whose derivative jumps where the error of an input changes its sign.
const RELU: f64 = 0.18;
/// AdamW divides a gradient by its own magnitude, so the errors of a few steps add up in the losses
/// after them.
const STEPS: f64 = 4.0;

/// The arithmetic of matrix products on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Products of f32 values, with sums in f32.
    #[default]
    F32,
    /// Products of f32 values that are cut to TF32, with sums in f32: NVIDIA GPUs from compute
    /// capability 8.0 on.
    Tf32,
    /// Products of values that are rounded to bf16, with sums in f32 that a GPU rounds to bf16. KV
    /// caches are bf16 too.
    Bf16,
}

impl Products {
    /// Returns how `device` multiplies f32 values.
    pub fn of_f32(device: DeviceName) -> Self {
        match device {
            DeviceName::Cuda(_) => Self::Tf32,
            _ => Self::F32,
        }
    }

    /// Returns the precision of models with these products.
    pub fn precision(self) -> Precision {
        match self {
            Self::F32 | Self::Tf32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
        }
    }

    /// Returns the largest relative error `u` of a rounded value, and the number of rounded values
    /// per product: two operands, and the result.
    fn rounding(self) -> Option<(f64, f64)> {
        match self {
            Self::F32 => None,
            Self::Tf32 => Some((TF32, 2.0)),
            Self::Bf16 => Some((BF16, 3.0)),
        }
    }

    /// Returns the expected error of a value after all matrix products of a model, relative to the
    /// root mean square of such values.
    ///
    /// The error of a rounded value is uniform below `u`, so its root mean square is at most
    /// `u / sqrt(3)`. A product has the errors of `r` rounded values, and a sum of products the same
    /// relative error as one product, because errors and values both grow with the square root of
    /// their number: `e = u sqrt(r / 3)`. Errors of consecutive products are independent, and
    /// residual connections and norms keep their relative size: `e sqrt(n)` after `n` products.
    ///
    /// `None` in f32, where tolerances are absolute.
    pub fn relative_error(self, config: &ModelConfig) -> Option<f64> {
        let products = products(config) as f64;
        self.rounding().map(|(u, rounded)| u * (rounded / 3.0).sqrt() * products.sqrt())
    }

    /// Returns the largest allowed difference of a value from `values`: embeddings or logits.
    pub fn values(self, config: &ModelConfig, values: &[f32]) -> f64 {
        match self.relative_error(config) {
            None => VALUES,
            Some(error) => LARGEST * error * root_mean_square(values),
        }
    }

    /// Returns the largest allowed difference of a loss, which is the mean of the errors of logits.
    pub(crate) fn losses(self, config: &ModelConfig, logits: &[f32]) -> f64 {
        match self.relative_error(config) {
            None => LOSSES,
            Some(error) => error * root_mean_square(logits),
        }
    }

    /// Returns the largest allowed difference of losses during a few AdamW steps.
    pub(crate) fn losses_of_steps(self, config: &ModelConfig, logits: &[f32]) -> f64 {
        let loss = self.losses(config, logits);
        if self == Self::F32 { loss } else { STEPS * loss }
    }

    /// Returns the largest allowed difference of a gradient, relative to its largest element. A
    /// gradient has passed through three times as many products as a logit.
    pub(crate) fn gradients(self, config: &ModelConfig) -> f64 {
        match self.relative_error(config) {
            None => GRADIENTS,
            Some(error) => {
                let has_relu =
                    config.stacks().token.is_some_and(|token| token.stack.cross_attention);
                LARGEST * error * 3.0_f64.sqrt() + if has_relu { RELU } else { 0.0 }
            }
        }
    }
}

/// Returns the number of matrix products that follow one another in a model.
fn products(config: &ModelConfig) -> usize {
    let stacks = config.stacks();
    let encoder = stacks.embedder.and_then(|embedder| embedder.encoder).map(|(stack, _)| stack);
    let token = stacks.token.map(|token| token.stack);
    let all = [Some(stacks.context), encoder, token].into_iter().flatten();
    let layers = all.map(|stack| {
        let cross = if stack.cross_attention { CROSS_ATTENTION } else { 0 };
        stack.layers * (PER_LAYER + cross)
    });
    OUTSIDE + layers.sum::<usize>()
}

fn root_mean_square(values: &[f32]) -> f64 {
    let squares = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
    (squares / values.len().max(1) as f64).sqrt()
}
