//! Kernels of the flex backend, on all processor threads.

#[macro_use]
mod simd;

mod adamw;
mod attention;
mod cross_entropy;
mod embedding;
mod gelu;
#[cfg(test)]
mod gradient_tests;
mod integers;
mod layer_norm;
mod linear;
mod matmul;
mod pack;
mod panels;
mod parts;
mod square_sum;
mod sum;
mod targets;
mod tracked_linear;

use burn::tensor::Device;

pub(crate) use adamw::adamw;
pub(crate) use attention::{cached_attention, self_attention};
pub(crate) use cross_entropy::linear_cross_entropy;
pub(crate) use embedding::embed;
pub(crate) use gelu::gelu;
pub(crate) use integers::{empty_integer_cache, integer_cache, integer_cache_rows, integer_rows};
pub(crate) use layer_norm::layer_norm;
pub(crate) use linear::{batch_invariant_rows, linear};
pub(crate) use pack::{pack, quantize};
pub(crate) use simd::math::exp_differences;
pub(crate) use square_sum::square_sum;
pub(crate) use sum::tracked_sum;
pub(crate) use targets::{exp_sum, score_targets, score_tokens};
pub(crate) use tracked_linear::tracked_linear;

/// Whether `device` is burn-flex without autodiff.
pub(crate) fn serves(device: &Device) -> bool {
    !device.is_autodiff() && *device == Device::flex()
}
