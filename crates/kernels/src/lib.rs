//! Operations written out for the flex device.
//!
//! On that device burn builds an attention layer of two dozen operations, each of which allocates
//! and walks its tensors on one thread. The ones here are single passes over the memory, on all
//! threads, with derivatives of their own. Everything is optional: a function returns `None` where
//! its kernel does not apply (another device, another float type, the feature `flex` left out), and
//! the caller composes the operation of burn's.
//!
//! Results do not depend on the number of threads: a task writes its own part of the output, in an
//! order of its own.

mod angles;
#[cfg(feature = "flex")]
mod attention;
#[cfg(feature = "flex")]
mod gelu;
#[cfg(feature = "flex")]
mod math;
mod order;
#[cfg(feature = "flex")]
mod parts;

pub use angles::Angles;
pub use order::Order;

use burn::tensor::Tensor;

/// Self-attention of GPT-NeoX from the fused projection: rotates queries and keys, attends in
/// `order`, and merges the heads.
///
/// # Shapes
/// - `qkv`: `[batch, time, heads * 3 * head_dim]`, laid out `[head][q, k, v][head_dim]`
/// - `angles`: of 1 or `batch` rows of `time` positions
/// - output: `[batch, time, heads * head_dim]`
pub fn self_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &Angles,
    order: &Order,
) -> Option<Tensor<3>> {
    #[cfg(feature = "flex")]
    return attention::self_attention(qkv, heads, angles, order);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (qkv, heads, angles, order);
        None
    }
}

/// `x * Phi(x)`, exact (the error function within 2 units in the last place).
pub fn gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    #[cfg(feature = "flex")]
    return gelu::gelu(x);
    #[cfg(not(feature = "flex"))]
    {
        let _ = x;
        None
    }
}
