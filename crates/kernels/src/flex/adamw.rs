//! The update of a tensor by AdamW in one pass.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use super::parts::{contiguous, values};
use crate::optimizer::AdamWStep;

/// Elements per task.
const TASK: usize = 1 << 15;

/// See [`crate::adamw`]. Each operation rounds as burn's own ones do, so that the bits are those of burn's
/// AdamW.
pub(crate) fn adamw<const D: usize>(
    tensors: [Tensor<D>; 3],
    gradient: &Tensor<D>,
    control: &Tensor<1>,
    step: AdamWStep,
) -> Option<[Tensor<D>; 3]> {
    let [mut weights, mut first, mut second] = tensors.map(primitive);
    let gradient = contiguous(&gradient.clone().try_into_primitive::<Flex>().ok()?)?;
    let control = contiguous(&control.clone().try_into_primitive::<Flex>().ok()?)?;
    let [factor, skip] = values(&control).try_into().ok()?;
    if skip == 0.0 {
        let [w, m, v] = [weights.as_mut()?, first.as_mut()?, second.as_mut()?].map(elements);
        let all = w.par_chunks_mut(TASK).zip(m.par_chunks_mut(TASK));
        let all = all.zip(v.par_chunks_mut(TASK)).zip(values(&gradient).par_chunks(TASK));
        all.for_each(|(((w, m), v), g)| update(w, m, v, g, factor, step));
    }
    let done = [weights?, first?, second?];
    Some(done.map(Tensor::from_primitive::<Flex>))
}

/// The tensor as one that owns its elements in order, so that they are written in place.
fn primitive<const D: usize>(tensor: Tensor<D>) -> Option<FlexTensor> {
    let tensor = tensor.try_into_primitive::<Flex>().ok()?;
    (tensor.dtype() == DType::F32).then(|| tensor.to_contiguous())
}

fn elements(tensor: &mut FlexTensor) -> &mut [f32] {
    let start = tensor.layout().start_offset();
    let end = start + tensor.layout().num_elements();
    &mut tensor.storage_mut::<f32>()[start..end]
}

vectorized! {
    fn update(
        weights: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient: &[f32],
        factor: f32,
        step: AdamWStep,
    ) {
        let AdamWStep { beta_1, beta_2, correction_1, correction_2, epsilon, keep, lr, .. } = step;
        let (new_1, new_2) = (1.0 - beta_1, 1.0 - beta_2);
        let moments = first.iter_mut().zip(second.iter_mut());
        for ((w, (m, v)), g) in weights.iter_mut().zip(moments).zip(gradient) {
            let g = g * factor;
            let (old_1, old_2) = if step.is_first { (-0.0, -0.0) } else { (*m * beta_1, *v * beta_2) };
            *m = old_1 + g * new_1;
            *v = old_2 + g * g * new_2;
            let mean = *m / correction_1;
            let deviation = (*v / correction_2).sqrt() + epsilon;
            *w = *w * keep - mean / deviation * lr;
        }
    }
}
