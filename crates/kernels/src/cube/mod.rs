//! Kernels of the CubeCL backends: CUDA, wgpu, and CubeCL on the processor.
//!
//! One implementation for `CubeBackend` serves all of them, with and without fusion. The traits in
//! [`operations`] declare the operations, and [`autodiff`] implements them and their derivatives. A
//! function here has the name and signature of the function in `lib.rs`. It returns `None` where a
//! tensor is not on a CubeCL device, because an operation panics on a backend that it is not
//! declared for.
//!
//! The kernels use neither shared memory nor barriers, at which the processor runtime spins.

mod autodiff;
mod cached_attention;
mod embedding;
mod operations;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{DType, Int, Tensor};

use crate::causal_mask::CausalMask;
use crate::indices::Indices;
use crate::rotary::RotaryAngles;
use operations::{InferenceOperations, TrainingOperations};

/// See [`crate::embed`].
pub(crate) fn embed(table: &Tensor<2>, ids: &Tensor<1, Int>) -> Option<Tensor<2>> {
    (is_cube(table) && table.dtype() == DType::F32).then(|| {
        let (table, ids) = (table.clone().into_dispatch(), ids.clone().into_dispatch());
        Tensor::from_dispatch(Dispatch::embed(table, ids))
    })
}

/// See [`crate::cached_attention`].
pub(crate) fn cached_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &RotaryAngles,
    mask: &CausalMask,
    slots: &Indices,
    keep: usize,
    cache: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    let device = qkv.device();
    let [rows, time, _] = qkv.dims();
    let [_, _, capacity, _] = cache[0].dims();
    let is_f32 = qkv.dtype() == DType::F32
        && cache.iter().all(|cache| cache.dtype() == DType::F32 && cache.device() == device);
    if !is_cube(qkv) || device.is_autodiff() || !is_f32 || angles.rotated() == 0 {
        return None;
    }
    let most_keys = (0..rows).map(|row| mask.start(row) + time).max()?;
    assert!(most_keys <= capacity, "{most_keys} positions exceed a KV cache of {capacity}");
    // the cache gives up its references to the tensors, so that they can be written without a copy
    let placeholder = Tensor::<4>::zeros([1, 1, 1, 1], &device);
    let [keys, values] = cache;
    let [stored_keys, stored_values] =
        [&mut *keys, &mut *values].map(|cache| std::mem::replace(cache, placeholder.clone()));
    let [cos, sin] = angles.table(&device);
    let (out, new_keys, new_values) = Dispatch::cached_attention(
        stored_keys.into_dispatch(),
        stored_values.into_dispatch(),
        qkv.clone().into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        angles.positions().tensor(&device).into_dispatch(),
        mask.starts().tensor(&device).into_dispatch(),
        slots.tensor(&device).into_dispatch(),
        heads,
        mask.group(),
        keep,
        most_keys,
    );
    *keys = Tensor::from_dispatch(new_keys);
    *values = Tensor::from_dispatch(new_values);
    Some(Tensor::from_dispatch(out))
}

/// Whether `x` is on a CubeCL device.
fn is_cube<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.device().inner().as_dispatch(), DispatchDevice::Cube(_))
}
