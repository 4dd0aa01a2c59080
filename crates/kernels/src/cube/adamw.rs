//! The update of a tensor by AdamW in one pass, and sums of squares for the gradient's norm.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::reduction::{total, units_for};
use crate::optimizer::{AdamWStep, SquareSums};

/// Elements per cube of a sum of squares.
const ELEMENTS_PER_PART: usize = SquareSums::ELEMENTS_PER_PART;

/// See [`crate::adamw`]. Returns weights and moments, which are written in place.
pub(super) fn adamw(
    [weights, first, second]: [CubeTensor; 3],
    gradient: CubeTensor,
    control: CubeTensor,
    step: AdamWStep,
) -> [CubeTensor; 3] {
    let [weights, first, second] = [weights, first, second].map(|tensor| {
        let tensor = into_contiguous(tensor);
        if tensor.handle.can_mut() { tensor } else { tensor.copy() }
    });
    let [gradient, control] = [gradient, control].map(into_contiguous);
    let client = weights.client.clone();
    let units = weights.meta.shape().num_elements();
    let cube = CubeDim::new(&client, units);
    let count = calculate_cube_count_elemwise(&client, units, cube);
    let dtype = dtype_to_storage_type(weights.dtype);
    adamw_kernel::launch(
        &client,
        count,
        cube,
        gradient.into_tensor_arg(),
        control.into_tensor_arg(),
        weights.clone().into_tensor_arg(),
        first.clone().into_tensor_arg(),
        second.clone().into_tensor_arg(),
        step.beta_1,
        step.beta_2,
        step.correction_1,
        step.correction_2,
        step.epsilon,
        step.decay,
        step.lr,
        dtype,
    );
    [weights, first, second]
}

/// One unit per element. `control` is the factor of the gradient, and 1 where the step is skipped.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn adamw_kernel<F: Float>(
    gradient: &Tensor<F>,
    control: &Tensor<F>,
    weights: &mut Tensor<F>,
    first: &mut Tensor<F>,
    second: &mut Tensor<F>,
    beta_1: f32,
    beta_2: f32,
    correction_1: f32,
    correction_2: f32,
    epsilon: f32,
    decay: f32,
    lr: f32,
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS >= weights.len() || control[1] > F::new(0.0) {
        terminate!();
    }
    let i = ABSOLUTE_POS;
    let one = F::new(1.0);
    let g = gradient[i] * control[0];
    let m = first[i] * F::cast_from(beta_1) + g * (one - F::cast_from(beta_1));
    let v = second[i] * F::cast_from(beta_2) + g * g * (one - F::cast_from(beta_2));
    let mean = m / F::cast_from(correction_1);
    let deviation = (v / F::cast_from(correction_2)).sqrt() + F::cast_from(epsilon);
    let kept = weights[i] * (one - F::cast_from(decay));
    first[i] = m;
    second[i] = v;
    weights[i] = kept - mean / deviation * F::cast_from(lr);
}

/// See [`crate::square_sums`]. Writes the sums of the parts of `x` to `parts` from `offset` on.
pub(super) fn square_sums(x: CubeTensor, parts: CubeTensor, offset: usize) -> CubeTensor {
    let [x, parts] = [x, parts].map(into_contiguous);
    let parts = if parts.handle.can_mut() { parts } else { parts.copy() };
    let elements = x.meta.shape().num_elements();
    let units = units_for(&x, elements);
    squares::launch(
        &x.client.clone(),
        CubeCount::Static(elements.div_ceil(ELEMENTS_PER_PART) as u32, 1, 1),
        CubeDim::new_1d(units as u32),
        x.clone().into_tensor_arg(),
        parts.clone().into_tensor_arg(),
        offset,
        units,
        dtype_to_storage_type(x.dtype),
    );
    parts
}

/// One cube per part.
#[cube(launch)]
fn squares<F: Float>(
    x: &Tensor<F>,
    parts: &mut Tensor<f32>,
    offset: usize,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let part = CUBE_POS;
    let first = part * ELEMENTS_PER_PART + UNIT_POS as usize;
    let mut end = (part + 1) * ELEMENTS_PER_PART;
    if end > x.len() {
        end = x.len();
    }
    let mut sums = Shared::<[f32]>::new_slice(units);
    let mut own = f32::new(0.0);
    for i in range_stepped(first, end, units) {
        let value = f32::cast_from(x[i]);
        own += value * value;
    }
    let sum = total(own, &mut sums, units);
    if UNIT_POS == 0 {
        parts[offset + part] = sum;
    }
}
