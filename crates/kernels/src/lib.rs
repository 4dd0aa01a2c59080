//! Fused operations, each of which burn would compose from many small ones.
//!
//! On the flex device, burn builds an attention layer from two dozen operations. Each of them
//! allocates its result and walks its tensors on one thread. The kernels here pass over the memory
//! once, on all threads, and have their own derivatives.
//!
//! Every kernel is optional: a function returns `None` where no kernel applies (on another device,
//! for another float type, or without the feature of the backend), and the caller then composes the
//! operation from burn's operations.
//!
//! Results do not depend on the number of threads: each task writes its own part of the output,
//! and its order of summation is fixed.
//!
//! # Backends
//! Each backend has a folder with one function per kernel, of the same name and signature as here.
//! Only this file chooses between backends; the code of `recompute.rs` is the same for all, and has
//! their types. The argument types ([`CausalMask`], [`RotaryAngles`],
//! [`Indices`]) hold their values on the host and copy them to a device at most once, when a
//! kernel asks for them; [`TargetScores`] can leave its values on the device.

mod cached_rows;
mod causal_mask;
#[cfg(feature = "cube")]
mod cube;
mod draws;
#[cfg(feature = "flex")]
mod flex;
mod host;
mod indices;
mod instruction_set;
mod layers;
mod log_probs;
mod none;
mod optimizer;
mod packed;
mod per_device;
#[cfg(any(feature = "cube", feature = "flex"))]
mod recompute;
mod rotary;
mod scores;
#[cfg(any(feature = "cube", feature = "flex"))]
mod watch;

pub use cached_rows::CachedRows;
pub use causal_mask::CausalMask;
pub use draws::{Draw, Draws};
pub use host::max_of;
pub use indices::{Indices, int_tensor};
pub use instruction_set::{InstructionSet, InvalidInstructionSet, instruction_set};
pub use layers::{Report, recomputed, watched};
pub use log_probs::{TokenLogProbs, most_likely};
pub use optimizer::AdamWStep;
pub use packed::{columns, is_packed, unpacked};
pub use per_device::PerDevice;
pub use rotary::{RotaryAngles, RotaryTable};
pub use scores::{TargetScore, TargetScores};

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

#[cfg(not(feature = "cube"))]
use none as cube;
#[cfg(not(feature = "flex"))]
use none as flex;

/// The rows `ids` of an embedding table, with a derivative that is parallel over the tokens.
///
/// # Shapes
/// - `table`: `[entries, width]`
/// - `ids`: `[count]`, each less than `entries`
/// - output: `[count, width]`
pub fn embed(table: &Tensor<2>, ids: &Tensor<1, Int>) -> Option<Tensor<2>> {
    cube::embed(table, ids).or_else(|| flex::embed(table, ids))
}

/// Self-attention of GPT-NeoX from the fused projection: rotates queries and keys, attends under
/// `mask`, and merges the heads.
///
/// # Shapes
/// - `qkv`: `[batch, time, heads * 3 * head_dim]`, laid out `[head][q, k, v][head_dim]`
/// - `angles`: 1 or `batch` rows of `time` positions
/// - output: `[batch, time, heads * head_dim]`
pub fn self_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &RotaryAngles,
    mask: &CausalMask,
) -> Option<Tensor<3>> {
    flex::self_attention(qkv, heads, angles, mask)
        .or_else(|| cube::self_attention(qkv, heads, angles, mask))
}

/// [`self_attention`] in chunks of queries: only the scores of one chunk are in memory at a time.
/// `hidden` is `mask` as a tensor, true at keys that a query may not see. On a device that
/// [multiplies] matrices of `format`, the operands of matrix products are cast to it; on other
/// devices they stay f32.
///
/// # Shapes
/// - `qkv`: `[batch, time, heads * 3 * head_dim]`, laid out `[head][q, k, v][head_dim]`
/// - `angles`: 1 or `batch` rows of `time` positions
/// - `hidden`: `[1 or batch, 1, time, time]`
/// - output: `[batch, time, heads * head_dim]`
pub fn chunked_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &RotaryAngles,
    mask: &CausalMask,
    hidden: &Tensor<4, Bool>,
    format: DType,
) -> Option<Tensor<3>> {
    cube::chunked_attention(qkv, heads, angles, mask, hidden, format)
}

/// Writes the keys and values of new positions to a KV cache in place, then attends over each
/// row's slot from position 0 to the row's last new position.
///
/// The new positions of row `i` start at `mask.start(i)`. The mask has no key mask. `hidden` returns the mask of
/// the queries as a tensor, true at keys that a query may not see, or `None` if no key is hidden; it is not called
/// for rows of different lengths. Where the function returns `None`, the cache is unchanged.
///
/// # Shapes
/// - `qkv`: `[rows, time, heads * 3 * head_dim]`; for rows of different lengths `[1, all positions, ...]`
/// - `angles`: like `qkv`
/// - `hidden`: `[1 or rows, 1, keep, keys]`
/// - `cache`: keys and values, `[slots, heads, capacity, head_dim]` each, or an [`integer_cache`]
/// - output: `[rows, keep, heads * head_dim]`; `[1, all positions, ...]` for all positions of rows of different
///   lengths
///
/// # Panics
/// When a slot does not exist, the new positions exceed the capacity, or two rows share a slot.
pub fn cached_attention(
    qkv: &Tensor<3>,
    angles: &RotaryAngles,
    mask: &CausalMask,
    hidden: &dyn Fn() -> Option<Tensor<4, Bool>>,
    rows: CachedRows<'_>,
    cache: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    let [keys, values] = cache;
    let here = [&mut *keys, &mut *values];
    flex::cached_attention(qkv, angles, mask, hidden, rows, here)
        .or_else(|| cube::cached_attention(qkv, angles, mask, hidden, rows, [keys, values]))
}

/// The largest number of rows for which the bits of a row of every linear layer on `device` do not
/// depend on the other rows; `None` where there is no such guarantee.
pub fn batch_invariant_rows(device: &Device) -> Option<usize> {
    flex::batch_invariant_rows(device)
}

/// Whether the bits of each query of [`cached_attention`] on `device` depend neither on the other queries nor on
/// the rows.
pub fn is_attention_batch_invariant(device: &Device) -> bool {
    flex::serves(device)
}

/// `x weight + bias` for a few rows, for which reading the matrix takes most of the time. The bits
/// of a row do not depend on the other rows.
///
/// # Shapes
/// - `x`: `[rows, d_in]`; with f32 weights, at most [`batch_invariant_rows`] rows
/// - `weight`: `[d_in, d_out]`, or in panels (see [`pack`]), for any number of rows
/// - `bias`: `[d_out]`
/// - output: `[rows, d_out]`
pub fn linear(x: &Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Option<Tensor<2>> {
    flex::linear(x, weight, bias)
}

/// `x weight + bias` on an autodiff device, with its derivative. Values and gradients have the bits of those of
/// burn's product of two matrices. Shapes: `[.., d_in]`, `[d_in, d_out]`, `[d_out] -> [.., d_out]`.
pub fn tracked_linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    flex::tracked_linear(x, weight, bias)
}

/// The sum of three tensors of one shape on an autodiff device, in this order, with its derivative.
pub fn tracked_sum<const D: usize>(terms: [&Tensor<D>; 3]) -> Option<Tensor<D>> {
    flex::tracked_sum(terms)
}

/// The mean cross-entropy of `softmax(hidden weight)` in nats on an autodiff device, where `weights` is the weight
/// of each row in the mean. At most `chunk_logits` logits are in memory at a time, but those of at least one row;
/// their gradient replaces them.
///
/// # Shapes
/// - `hidden`: `[rows, width]`
/// - `weight`: `[width, vocab]`
/// - `targets`, `weights`: `[rows]`
/// - output: `[1]`
pub fn linear_cross_entropy(
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Tensor<1, Int>,
    weights: &Tensor<1>,
    chunk_logits: usize,
) -> Option<Tensor<1>> {
    flex::linear_cross_entropy(hidden, weight, targets, weights, chunk_logits)
}

/// The matrix `weight` `[d_in, d_out]` in panels of 16 columns, `[d_out / 16 * d_in, 16]`: row after row of
/// a panel, panel after panel. [`linear`] multiplies by it faster. `None` where no kernel applies, or if
/// the number of columns is not a multiple of 16.
pub fn pack(weight: &Tensor<2>) -> Option<Tensor<2>> {
    flex::pack(weight)
}

/// The f32 or bf16 matrix `weight` `[d_in, d_out]` as integers of 8 bits, in panels like those of [`pack`], for
/// [`linear`]. A column is scaled so that its largest absolute value becomes 127, and rounded. Each panel
/// ends with four rows that hold the scales of its columns in f32: `[d_out / 16 * (d_in + 4), 16]`. `None` like
/// [`pack`].
pub fn quantize(weight: &Tensor<2>) -> Option<Tensor<2>> {
    flex::quantize(weight)
}

/// Bytes of the scale of a row of an [`integer_cache`].
pub const INTEGER_CACHE_SCALE: usize = size_of::<f32>();

/// A cache of keys or values in integers of 8 bits for [`cached_attention`], with the contents of `one` in each
/// of `slots` slots. Each row of `dim` integers ends with its scale, 4 bytes: the largest absolute value of the
/// row becomes 127.
///
/// # Shapes
/// - `one`: `[1, heads, capacity, dim]` in f32
/// - output: `[slots, heads, capacity, dim + 4]`; `None` where no kernel applies
pub fn integer_cache(one: &Tensor<4>, slots: usize) -> Option<Tensor<4>> {
    flex::integer_cache(one, slots)
}

/// An [`integer_cache`] of zeros for `[slots, heads, capacity, dim]` keys or values; `None` where no kernel applies.
pub fn empty_integer_cache(shape: [usize; 4], device: &Device) -> Option<Tensor<4>> {
    flex::empty_integer_cache(shape, device)
}

/// The integers of an [`integer_cache`], with the bytes of the scale at the end of each row; `None` for other
/// tensors. They have the memory of the cache.
///
/// # Shapes
/// - output: `[slots, heads, capacity, dim + 4]`
pub fn integer_rows(cache: Tensor<4>) -> Option<Tensor<4, Int>> {
    flex::integer_rows(cache)
}

/// The [`integer_cache`] of these [rows](integer_rows); `None` where no kernel applies.
pub fn integer_cache_rows(rows: Tensor<4, Int>) -> Option<Tensor<4>> {
    flex::integer_cache_rows(rows)
}

/// Whether `device` multiplies matrices of `format` and sums the products in f32. On such a device, a
/// product of an f32 matrix and one of `format` is faster if the f32 matrix is cast to `format`; on
/// other devices, the matrix of `format` must be cast to f32.
pub fn multiplies(device: &Device, format: DType) -> bool {
    cube::multiplies(device, format)
}

/// Layer norm of rows, with its derivative.
///
/// # Shapes
/// - `x`: `[rows, width]`
/// - `gamma`, `beta`: `[width]`
/// - output: `[rows, width]`
pub fn layer_norm(
    x: &Tensor<2>,
    gamma: &Tensor<1>,
    beta: &Tensor<1>,
    epsilon: f64,
) -> Option<Tensor<2>> {
    flex::layer_norm(x, gamma, beta, epsilon).or_else(|| cube::layer_norm(x, gamma, beta, epsilon))
}

/// Whether [`adamw`] applies to tensors on `device`.
pub fn has_adamw(device: &Device) -> bool {
    cube::serves(device) || flex::serves(device)
}

/// A step of AdamW in one pass: `weights`, first and second moment, which are written in place.
/// `control` is `[2]`: the factor of the gradient, and 1 for a step that changes nothing, otherwise 0.
pub fn adamw<const D: usize>(
    tensors: [Tensor<D>; 3],
    gradient: &Tensor<D>,
    control: &Tensor<1>,
    step: AdamWStep,
) -> Option<[Tensor<D>; 3]> {
    if cube::serves(&gradient.device()) {
        return cube::adamw(tensors, gradient, control, step);
    }
    flex::adamw(tensors, gradient, control, step)
}

/// The sum of the squares of all elements of `tensors`, `[1]`, on a GPU with a launch per eight tensors. `None`
/// without tensors.
pub fn square_sum(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    cube::square_sum(tensors).or_else(|| flex::square_sum(tensors))
}

/// Whether `device` computes with CubeCL.
pub fn is_cubecl(device: &Device) -> bool {
    cube::serves(device)
}

/// Whether [`choose`] applies to logits on `device`.
pub fn chooses(device: &Device) -> bool {
    cube::serves(device)
}

/// Whether `device` runs captured graphs itself, so that capturing one saves launches.
pub fn has_graphs(device: &Device) -> bool {
    cube::has_graphs(device)
}

/// Replaces the values of `tensor` in its memory. A captured graph, which reads this memory, gets new
/// inputs in this way.
///
/// # Panics
/// When `data` has another shape than `tensor`, or no kernel applies ([`chooses`] says so).
pub fn refresh(tensor: &mut Tensor<1>, data: TensorData) {
    assert_eq!(tensor.shape(), *data.shape(), "a refresh keeps the shape");
    let data = data.convert_dtype(tensor.dtype());
    cube::refresh(tensor, data);
}

/// Replaces the values of `tensor` like [`refresh`].
///
/// # Panics
/// Like [`refresh`].
pub fn refresh_ints(tensor: &mut Tensor<1, Int>, data: TensorData) {
    assert_eq!(tensor.shape(), *data.shape(), "a refresh keeps the shape");
    let data = data.convert_dtype(tensor.dtype());
    cube::refresh_ints(tensor, data);
}

impl Draws {
    /// Replaces the settings in their memory.
    ///
    /// # Panics
    /// When the number of rows differs.
    pub fn refresh_settings(&mut self, rows: &[Draw]) {
        refresh(&mut self.settings, Self::values(rows));
    }

    /// Replaces the random numbers `[rows * places]` in their memory.
    ///
    /// # Panics
    /// When the shape differs.
    pub fn refresh_noise(&mut self, noise: TensorData) {
        refresh(&mut self.noise, noise);
    }
}

/// Chooses the token of each row on the device, with the random numbers of `place`, and writes it to
/// its `place` of `block`. Where the largest logit is not finite, the block gets -1 and the
/// output 0. `pad` is the padding id.
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
/// - `block`: `[rows * places]`
/// - output: `[rows]`
pub fn choose(
    logits: &Tensor<2>,
    draws: &Draws,
    block: &mut Tensor<1, Int>,
    place: usize,
    pad: usize,
) -> Option<Tensor<1, Int>> {
    cube::choose(logits, draws, block, place, pad)
}

/// Scores one target per row of logits. If a logit of a row is not finite, the
/// log-probability of that row is not finite either.
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
/// - `targets`: `[rows]`, each less than `vocab`
///
/// # Panics
/// When the number of targets is not the number of rows.
pub fn score_targets(logits: &Tensor<2>, targets: &[u32]) -> Option<TargetScores> {
    flex::score_targets(logits, targets)
}

/// Scores one target per row of logits like [`score_targets`], and finds the `top` most probable ids of each row.
///
/// # Panics
/// When the number of targets is not the number of rows.
pub fn score_tokens(logits: &Tensor<2>, targets: &[u32], top: usize) -> Option<Vec<TokenLogProbs>> {
    flex::score_tokens(logits, targets, top)
}

/// `x * Phi(x)`, where the error function in `Phi` is within 1e-6 of its value. On a CubeCL device whose
/// products have operands in `format`, the derivative is that at `x` rounded to `format`.
pub fn gelu<const D: usize>(x: &Tensor<D>, format: DType) -> Option<Tensor<D>> {
    flex::gelu(x).or_else(|| cube::gelu_in_training(x, format))
}

/// Replaces each `x` by `e^(scale * (x - max))`, on the host.
pub fn exp_differences(x: &mut [f32], max: f32, scale: f32) {
    flex::exp_differences(x, max, scale);
}
