//! The functions of the backend folders, for builds without the backend.

#![cfg_attr(
    any(feature = "flex", feature = "cube"),
    allow(dead_code, reason = "a build contains the functions of the backends that it lacks")
)]

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::cached_rows::CachedRows;
use crate::causal_mask::CausalMask;
use crate::draws::Draws;
use crate::host::max_of;
use crate::log_probs::TokenLogProbs;
use crate::optimizer::AdamWStep;
use crate::rotary::RotaryAngles;
use crate::scores::TargetScores;

pub(crate) fn self_attention(
    _: &Tensor<3>,
    _: usize,
    _: &RotaryAngles,
    _: &CausalMask,
) -> Option<Tensor<3>> {
    None
}

pub(crate) fn chunked_attention(
    _: &Tensor<3>,
    _: usize,
    _: &RotaryAngles,
    _: &CausalMask,
    _: &Tensor<4, Bool>,
    _: DType,
) -> Option<Tensor<3>> {
    None
}

pub(crate) fn cached_attention(
    _: &Tensor<3>,
    _: &RotaryAngles,
    _: &CausalMask,
    _: &dyn Fn() -> Option<Tensor<4, Bool>>,
    _: CachedRows<'_>,
    _: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    None
}

pub(crate) fn batch_invariant_rows(_: &Device) -> Option<usize> {
    None
}

pub(crate) fn linear(_: &Tensor<2>, _: &Tensor<2>, _: Option<&Tensor<1>>) -> Option<Tensor<2>> {
    None
}

pub(crate) fn tracked_linear<const D: usize>(
    _: &Tensor<D>,
    _: &Tensor<2>,
    _: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    None
}

pub(crate) fn tracked_sum<const D: usize>(_: [&Tensor<D>; 3]) -> Option<Tensor<D>> {
    None
}

pub(crate) fn linear_cross_entropy(
    _: &Tensor<2>,
    _: &Tensor<2>,
    _: &Tensor<1, Int>,
    _: &Tensor<1>,
    _: usize,
) -> Option<Tensor<1>> {
    None
}

pub(crate) fn score_targets(_: &Tensor<2>, _: &[u32]) -> Option<TargetScores> {
    None
}

pub(crate) fn score_tokens(_: &Tensor<2>, _: &[u32], _: usize) -> Option<Vec<TokenLogProbs>> {
    None
}

pub(crate) fn exp_sum(row: &[f32]) -> (f32, f64) {
    let largest = max_of(row);
    (largest, row.iter().map(|x| f64::from(x - largest).exp()).sum())
}

pub(crate) fn gelu<const D: usize>(_: &Tensor<D>) -> Option<Tensor<D>> {
    None
}

pub(crate) fn gelu_in_training<const D: usize>(_: &Tensor<D>, _: DType) -> Option<Tensor<D>> {
    None
}

pub(crate) fn exp_differences(x: &mut [f32], max: f32, scale: f32) {
    x.iter_mut().for_each(|x| *x = ((*x - max) * scale).exp());
}

pub(crate) fn embed(_: &Tensor<2>, _: &Tensor<1, Int>) -> Option<Tensor<2>> {
    None
}

pub(crate) fn multiplies(_: &Device, _: DType) -> bool {
    false
}

pub(crate) fn choose(
    _: &Tensor<2>,
    _: &Draws,
    _: &mut Tensor<1, Int>,
    _: usize,
    _: usize,
) -> Option<Tensor<1, Int>> {
    None
}

pub(crate) fn serves(_: &Device) -> bool {
    false
}

pub(crate) fn has_graphs(_: &Device) -> bool {
    false
}

pub(crate) fn refresh<const D: usize>(_: &mut Tensor<D>, _: TensorData) {
    unreachable!("there are no graphs without kernels")
}

pub(crate) fn refresh_ints<const D: usize>(_: &mut Tensor<D, Int>, _: TensorData) {
    unreachable!("there are no graphs without kernels")
}

pub(crate) fn layer_norm(_: &Tensor<2>, _: &Tensor<1>, _: &Tensor<1>, _: f64) -> Option<Tensor<2>> {
    None
}

pub(crate) fn adamw<const D: usize>(
    _: [Tensor<D>; 3],
    _: &Tensor<D>,
    _: &Tensor<1>,
    _: AdamWStep,
) -> Option<[Tensor<D>; 3]> {
    None
}

pub(crate) fn square_sum(_: &[Tensor<1>]) -> Option<Tensor<1>> {
    None
}

pub(crate) fn quantize(_: &Tensor<2>) -> Option<Tensor<2>> {
    None
}

pub(crate) fn integer_cache(_: &Tensor<4>, _: usize) -> Option<Tensor<4>> {
    None
}

pub(crate) fn empty_integer_cache(_: [usize; 4], _: &Device) -> Option<Tensor<4>> {
    None
}

pub(crate) fn integer_rows(_: Tensor<4>) -> Option<Tensor<4, Int>> {
    None
}

pub(crate) fn integer_cache_rows(_: Tensor<4, Int>) -> Option<Tensor<4>> {
    None
}

pub(crate) fn pack(_: &Tensor<2>) -> Option<Tensor<2>> {
    None
}
