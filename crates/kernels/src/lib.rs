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
#[cfg(feature = "flex")]
mod product;
#[cfg(feature = "flex")]
mod targets;
#[cfg(feature = "flex")]
mod vector;

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

/// The same for new positions after those in a cache, which they are written to in place. Row `i`
/// lives in slot `slots[i]` and starts at position `order.starts[i]`; no padding. The last `keep`
/// positions of each row attend.
///
/// # Shapes
/// - `qkv`: `[rows, time, heads * 3 * head_dim]`
/// - `cache`: keys and values, `[slots, heads, capacity, head_dim]` each
/// - output: `[rows, keep, heads * head_dim]`
///
/// # Panics
/// When the positions do not fit, or two rows have one slot.
pub fn cached_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &Angles,
    order: &Order,
    slots: &[usize],
    keep: usize,
    cache: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    #[cfg(feature = "flex")]
    return attention::cached_attention(qkv, heads, angles, order, slots, keep, cache);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (qkv, heads, angles, order, slots, keep, cache);
        None
    }
}

/// Rows from which on [`linear`] leaves matrices of f32 to burn's own product, which packs them. It
/// gives a row other bits than this one, which does not look at how many there are.
pub const MANY_ROWS: usize = 192;

/// `x weight + bias` for a few rows, whose cost is reading the matrix; none for many, where it is
/// the arithmetic. A row's bits do not depend on the others.
///
/// # Shapes
/// - `x`: `[rows, d_in]`
/// - `weight`: `[d_in, d_out]`
/// - `bias`: `[d_out]`
/// - output: `[rows, d_out]`
pub fn linear(x: &Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    return product::linear(x, weight, bias);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (x, weight, bias);
        None
    }
}

/// What logits say of a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetScore {
    /// Its log-probability in nats.
    pub log_prob: f64,
    /// The first of the most probable ids.
    pub top: u32,
}

/// Scores `targets`, one a row of `logits` `[rows, vocab]`, below `vocab`. A logit that is not
/// finite makes its row's log-probability not finite.
///
/// # Panics
/// When there is not one target a row.
pub fn score_targets(logits: &Tensor<2>, targets: &[u32]) -> Option<Vec<TargetScore>> {
    #[cfg(feature = "flex")]
    return targets::score_targets(logits, targets);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (logits, targets);
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

/// `x = e^(scale * (x - most))`, for the probabilities of logits on the host.
pub fn exp_differences(x: &mut [f32], most: f32, scale: f32) {
    #[cfg(feature = "flex")]
    math::exp_differences(x, most, scale);
    #[cfg(not(feature = "flex"))]
    x.iter_mut().for_each(|x| *x = ((*x - most) * scale).exp());
}
