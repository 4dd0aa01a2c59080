//! Kernels of the CubeCL backends: CUDA, wgpu, and CubeCL on the processor.
//!
//! One implementation for `CubeBackend` serves all of them, with and without fusion. The traits in
//! [`pieces`] and [`operations`] declare the operations, [`backend`] implements them, and [`autodiff`]
//! has their derivatives. A function here has the name and signature of the function in `lib.rs`. It
//! returns `None` where a tensor is not on a CubeCL device, because an operation panics on a backend
//! that it is not declared for.
//!
//! On the processor runtime, which spins at barriers, cubes with barriers have one unit.

mod adamw;
mod autodiff;
mod backend;
mod cached_attention;
mod cached_kernels;
mod choose;
mod embedding;
mod gelu;
mod layer_norm;
mod long_attention;
mod operations;
mod pieces;
mod reduction;
mod rotation;
mod short_attention;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use burn_cubecl::cubecl::device::RuntimeId;

use crate::cached_rows::CachedRows;
use crate::causal_mask::CausalMask;
use crate::draws::Draws;
use crate::optimizer::AdamWStep;
use crate::rotary::RotaryAngles;
use adamw::{ELEMENTS_PER_PART, TENSORS_PER_LAUNCH};
use operations::{InferenceOperations, TrainingOperations};

/// See [`crate::embed`].
pub(crate) fn embed(table: &Tensor<2>, ids: &Tensor<1, Int>) -> Option<Tensor<2>> {
    (is_cube(table) && table.dtype() == DType::F32).then(|| {
        let (table, ids) = (table.clone().into_dispatch(), ids.clone().into_dispatch());
        Tensor::from_dispatch(Dispatch::embed(table, ids))
    })
}

/// See [`crate::self_attention`]. This kernel serves few positions without a key mask.
pub(crate) fn self_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &RotaryAngles,
    mask: &CausalMask,
) -> Option<Tensor<3>> {
    let [_, time, width] = qkv.dims();
    let fits = time <= short_attention::MAX_TIME && width / heads / 3 <= short_attention::MAX_DIM;
    let starts_at_0 = mask.starts().iter().all(|&start| start == 0);
    let applies = fits && starts_at_0 && mask.key_mask().is_none() && angles.rotated() > 0;
    if !applies || !is_cube(qkv) || qkv.dtype() != DType::F32 {
        return None;
    }
    let device = qkv.device();
    let [cos, sin] = angles.table(&device);
    Some(Tensor::from_dispatch(Dispatch::short_attention(
        qkv.clone().into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        angles.positions().tensor(&device).into_dispatch(),
        heads,
        mask.group(),
    )))
}

/// See [`crate::chunked_attention`].
pub(crate) fn chunked_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &RotaryAngles,
    mask: &CausalMask,
    hidden: &Tensor<4, Bool>,
    format: DType,
) -> Option<Tensor<3>> {
    let starts_at_0 = mask.starts().iter().all(|&start| start == 0);
    if !starts_at_0 || angles.rotated() == 0 || !is_cube(qkv) || qkv.dtype() != DType::F32 {
        return None;
    }
    let device = qkv.device();
    let format = if multiplies(&device, format) { format } else { DType::F32 };
    let [cos, sin] = angles.table(&device);
    Some(Tensor::from_dispatch(Dispatch::long_attention(
        qkv.clone().into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        angles.positions().tensor(&device).into_dispatch(),
        hidden.clone().into_dispatch(),
        heads,
        mask.group(),
        format,
    )))
}

/// The number of queries per row from which attention over a cache is computed by matrix products.
const MANY_QUERIES: usize = 32;

/// See [`crate::cached_attention`].
pub(crate) fn cached_attention(
    qkv: &Tensor<3>,
    angles: &RotaryAngles,
    mask: &CausalMask,
    hidden: &dyn Fn() -> Option<Tensor<4, Bool>>,
    CachedRows { slots, lengths, keep }: CachedRows<'_>,
    cache: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    let device = qkv.device();
    let [rows, time, _] = qkv.dims();
    let keep = keep.unwrap_or(time);
    let [_, heads, capacity, _] = cache[0].dims();
    let here = cache.iter().all(|cache| cache.device() == device);
    let is_f32 = qkv.dtype() == DType::F32;
    let equal = lengths.is_none() && angles.rotated() > 0;
    if !is_cube(qkv) || device.is_autodiff() || !is_f32 || !here || !equal {
        return None;
    }
    let most_keys = (0..rows).map(|row| mask.start(row) + time).max()?;
    assert!(most_keys <= capacity, "{most_keys} positions exceed a KV cache of {capacity}");
    // bounded positions are those of decoding, with few queries
    let many = keep >= MANY_QUERIES && !mask.starts().is_bounded() && !spins(&device);
    let hidden = if many { hidden() } else { None };
    // the cache gives up its references to the tensors, so that they can be written without a copy
    let placeholder = Tensor::<4>::zeros([1, 1, 1, 1], &device);
    let [keys, values] = cache;
    let [stored_keys, stored_values] =
        [&mut *keys, &mut *values].map(|cache| std::mem::replace(cache, placeholder.clone()));
    let format = stored_keys.dtype();
    let format = if multiplies(&device, format) { format } else { DType::F32 };
    let [stored_keys, stored_values] = [stored_keys, stored_values].map(Tensor::into_dispatch);
    let [cos, sin] = angles.table(&device).map(Tensor::into_dispatch);
    let positions = angles.positions().tensor(&device).into_dispatch();
    let starts = mask.starts().tensor(&device).into_dispatch();
    let (qkv, slots) = (qkv.clone().into_dispatch(), slots.tensor(&device).into_dispatch());
    let (out, new_keys, new_values) = match hidden {
        Some(hidden) => Dispatch::prefill_attention(
            stored_keys,
            stored_values,
            qkv,
            cos,
            sin,
            positions,
            starts,
            slots,
            hidden.into_dispatch(),
            mask.group(),
            keep,
            most_keys,
            format,
        ),
        None => Dispatch::cached_attention(
            stored_keys,
            stored_values,
            qkv,
            cos,
            sin,
            positions,
            starts,
            slots,
            heads,
            mask.group(),
            keep,
            most_keys,
        ),
    };
    *keys = Tensor::from_dispatch(new_keys);
    *values = Tensor::from_dispatch(new_values);
    Some(Tensor::from_dispatch(out))
}

/// See [`crate::layer_norm`].
pub(crate) fn layer_norm(
    x: &Tensor<2>,
    gamma: &Tensor<1>,
    beta: &Tensor<1>,
    epsilon: f64,
) -> Option<Tensor<2>> {
    (is_cube(x) && x.dtype() == DType::F32).then(|| {
        Tensor::from_dispatch(Dispatch::layer_norm_rows(
            x.clone().into_dispatch(),
            gamma.clone().into_dispatch(),
            beta.clone().into_dispatch(),
            epsilon as f32,
        ))
    })
}

/// See [`crate::adamw`].
pub(crate) fn adamw<const D: usize>(
    [weights, first, second]: [Tensor<D>; 3],
    gradient: &Tensor<D>,
    control: &Tensor<1>,
    step: AdamWStep,
) -> Option<[Tensor<D>; 3]> {
    let device = weights.device();
    if !is_cube(&weights) || device.is_autodiff() || weights.dtype() != DType::F32 {
        return None;
    }
    let (weights, first, second) = Dispatch::adamw(
        weights.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        gradient.clone().into_dispatch(),
        control.clone().into_dispatch(),
        step,
    );
    Some([weights, first, second].map(Tensor::from_dispatch))
}

/// See [`crate::square_sum`].
pub(crate) fn square_sum(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    let device = tensors.first()?.device();
    if !is_cube_device(&device) {
        return None;
    }
    let of = |x: &Tensor<1>| x.dims()[0].div_ceil(ELEMENTS_PER_PART);
    let mut parts =
        Tensor::<1>::zeros([tensors.iter().map(of).sum::<usize>()], &device).into_dispatch();
    let mut used = 0;
    for tensors in tensors.chunks(TENSORS_PER_LAUNCH) {
        // the last one fills the arguments
        let x = |i: usize| tensors[i.min(tensors.len() - 1)].clone().into_dispatch();
        let [x0, x1, x2, x3, x4, x5, x6, x7] = std::array::from_fn(x);
        let count = tensors.len();
        parts = Dispatch::square_sums(x0, x1, x2, x3, x4, x5, x6, x7, parts, used, count);
        used += tensors.iter().map(of).sum::<usize>();
    }
    // along the axis, because `sum` would add parts in the order in which its thread groups finish
    Some(Tensor::<1>::from_dispatch(parts).sum_dim(0))
}

/// Whether the kernels of this folder serve `device`.
pub(crate) fn serves(device: &Device) -> bool {
    is_cube_device(device)
}

/// Whether `device` is CubeCL on the processor, whose threads spin at the barriers of matrix products. With
/// fewer cores than threads, small products take seconds.
fn spins(device: &Device) -> bool {
    match device.clone().inner().as_dispatch() {
        DispatchDevice::Cube(device) => matches!(device.runtime(), RuntimeId::Cpu),
        #[allow(unreachable_patterns, reason = "other backends are optional")]
        _ => false,
    }
}

/// See [`crate::has_graphs`]. A wgpu device records graphs too, but submits each launch of a replay.
pub(crate) fn has_graphs(device: &Device) -> bool {
    match device.clone().inner().as_dispatch() {
        DispatchDevice::Cube(device) => {
            matches!(device.runtime(), RuntimeId::Cuda | RuntimeId::Hip)
        }
        #[allow(unreachable_patterns, reason = "other backends are optional")]
        _ => false,
    }
}

/// See [`crate::refresh`].
pub(crate) fn refresh(tensor: &mut Tensor<1>, data: TensorData) {
    let placeholder = Tensor::zeros([1], &tensor.device());
    let old = std::mem::replace(tensor, placeholder);
    *tensor = Tensor::from_dispatch(Dispatch::refresh(old.into_dispatch(), data));
}

/// See [`crate::refresh_ints`].
pub(crate) fn refresh_ints(tensor: &mut Tensor<1, Int>, data: TensorData) {
    let placeholder = Tensor::zeros([1], &tensor.device());
    let old = std::mem::replace(tensor, placeholder);
    *tensor = Tensor::from_dispatch(Dispatch::refresh_ints(old.into_dispatch(), data));
}

/// See [`crate::choose`].
pub(crate) fn choose(
    logits: &Tensor<2>,
    draws: &Draws,
    block: &mut Tensor<1, Int>,
    place: usize,
    pad: usize,
) -> Option<Tensor<1, Int>> {
    if !is_cube(logits) {
        return None;
    }
    let (settings, noise) = (draws.settings.clone(), draws.noise.clone());
    // the block gives up its reference, so that it can be written without a copy
    let placeholder = Tensor::zeros([1], &logits.device());
    let (ids, written) = Dispatch::choose(
        logits.clone().into_dispatch(),
        settings.into_dispatch(),
        noise.into_dispatch(),
        std::mem::replace(block, placeholder).into_dispatch(),
        place,
        pad,
    );
    *block = Tensor::from_dispatch(written);
    Some(Tensor::from_dispatch(ids))
}

/// See [`crate::gelu`].
pub(crate) fn gelu_in_training<const D: usize>(x: &Tensor<D>, format: DType) -> Option<Tensor<D>> {
    if !is_cube(x) || !x.is_autodiff() {
        return None;
    }
    gelu::in_training(x, if multiplies(&x.device(), format) { format } else { x.dtype() })
}

/// See [`crate::multiplies`].
pub(crate) fn multiplies(device: &Device, format: DType) -> bool {
    is_cube_device(device) && device.supports_dtype(format)
}

/// Whether `x` is on a CubeCL device.
fn is_cube<const D: usize>(x: &Tensor<D>) -> bool {
    is_cube_device(&x.device())
}

fn is_cube_device(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Cube(_))
}
