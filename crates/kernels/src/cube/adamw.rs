//! The update of a tensor by AdamW in one pass, and sums of squares for the gradient's norm.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::reduction::{total, units_for};
use crate::optimizer::AdamWStep;

/// Elements of a sum of squares that are added by one cube.
pub(super) const ELEMENTS_PER_PART: usize = 1 << 16;
/// Tensors whose squares are added by one launch.
pub(super) const TENSORS_PER_LAUNCH: usize = 8;

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
        step.keep,
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
    keep: f32,
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
    let kept = weights[i] * F::cast_from(keep);
    first[i] = m;
    second[i] = v;
    weights[i] = kept - mean / deviation * F::cast_from(lr);
}

/// See [`crate::square_sum`]. Writes the sums of the parts of the first `count` of `tensors` to `parts` from
/// `offset` on.
pub(super) fn square_sums(
    tensors: [CubeTensor; TENSORS_PER_LAUNCH],
    parts: CubeTensor,
    offset: usize,
    count: usize,
) -> CubeTensor {
    let tensors = tensors.map(into_contiguous);
    let parts = into_contiguous(parts);
    let parts = if parts.handle.can_mut() { parts } else { parts.copy() };
    let elements = |x: &CubeTensor| x.meta.shape().num_elements();
    let of = |x: &CubeTensor| elements(x).div_ceil(ELEMENTS_PER_PART);
    let largest = tensors[..count].iter().map(elements).max().unwrap_or(1);
    let units = units_for(&parts, largest.min(ELEMENTS_PER_PART));
    let dtype = dtype_to_storage_type(tensors[0].dtype);
    let cubes: usize = tensors[..count].iter().map(of).sum();
    let [x0, x1, x2, x3, x4, x5, x6, x7] = tensors.map(CubeTensor::into_tensor_arg);
    squares::launch(
        &parts.client.clone(),
        CubeCount::Static(cubes as u32, 1, 1),
        CubeDim::new_1d(units as u32),
        x0,
        x1,
        x2,
        x3,
        x4,
        x5,
        x6,
        x7,
        parts.clone().into_tensor_arg(),
        offset,
        units,
        dtype,
    );
    parts
}

/// One cube per part; the parts of each tensor follow those of the tensor before it. There are no cubes for
/// tensors that only fill the arguments.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn squares<F: Float>(
    x0: &Tensor<F>,
    x1: &Tensor<F>,
    x2: &Tensor<F>,
    x3: &Tensor<F>,
    x4: &Tensor<F>,
    x5: &Tensor<F>,
    x6: &Tensor<F>,
    x7: &Tensor<F>,
    parts: &mut Tensor<f32>,
    offset: usize,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let e1 = x0.len().div_ceil(ELEMENTS_PER_PART);
    let e2 = e1 + x1.len().div_ceil(ELEMENTS_PER_PART);
    let e3 = e2 + x2.len().div_ceil(ELEMENTS_PER_PART);
    let e4 = e3 + x3.len().div_ceil(ELEMENTS_PER_PART);
    let e5 = e4 + x4.len().div_ceil(ELEMENTS_PER_PART);
    let e6 = e5 + x5.len().div_ceil(ELEMENTS_PER_PART);
    let e7 = e6 + x6.len().div_ceil(ELEMENTS_PER_PART);
    let part = CUBE_POS;
    let own = if part < e1 {
        part_of::<F>(x0, part, units)
    } else if part < e2 {
        part_of::<F>(x1, part - e1, units)
    } else if part < e3 {
        part_of::<F>(x2, part - e2, units)
    } else if part < e4 {
        part_of::<F>(x3, part - e3, units)
    } else if part < e5 {
        part_of::<F>(x4, part - e4, units)
    } else if part < e6 {
        part_of::<F>(x5, part - e5, units)
    } else if part < e7 {
        part_of::<F>(x6, part - e6, units)
    } else {
        part_of::<F>(x7, part - e7, units)
    };
    let mut sums = Shared::<[f32]>::new_slice(units);
    let sum = total(own, &mut sums, units);
    if UNIT_POS == 0 {
        parts[offset + part] = sum;
    }
}

/// The unit's share of the sum of the squares of part `part` of `x`.
#[cube]
fn part_of<F: Float>(x: &Tensor<F>, part: usize, #[comptime] units: usize) -> f32 {
    let first = part * ELEMENTS_PER_PART + UNIT_POS as usize;
    let mut end = (part + 1) * ELEMENTS_PER_PART;
    if end > x.len() {
        end = x.len();
    }
    let mut own = f32::new(0.0);
    for i in range_stepped(first, end, units) {
        let value = f32::cast_from(x[i]);
        own += value * value;
    }
    own
}
