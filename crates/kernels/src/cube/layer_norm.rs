//! Layer norm and its derivative. One cube per row; the gradients of the parameters are sums over rows,
//! which are added in parts.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::reduction::{one_cube_per_row, own_row, total, units_for};
use super::rotation::empty;

/// Rows per part of the sums of the parameters' gradients.
const ROWS_PER_PART: usize = 64;

/// See [`crate::layer_norm`]. `x` is `[rows, width]`.
pub(super) fn layer_norm(
    x: CubeTensor,
    gamma: CubeTensor,
    beta: CubeTensor,
    epsilon: f32,
) -> CubeTensor {
    let [x, gamma, beta] = [x, gamma, beta].map(into_contiguous);
    let [rows, width] = x.meta.shape().dims();
    let out = empty(&x, x.meta.shape().clone(), x.dtype);
    let units = units_for(&x, width);
    forward::launch(
        &x.client.clone(),
        one_cube_per_row(&x, rows),
        CubeDim::new_1d(units as u32),
        x.clone().into_tensor_arg(),
        gamma.into_tensor_arg(),
        beta.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        epsilon,
        units,
        dtype_to_storage_type(x.dtype),
    );
    out
}

/// The gradient with respect to `x` `[rows, width]`, and parts `[parts, width]` whose sums are the
/// gradients with respect to `gamma` and `beta`.
pub(super) fn gradients(
    d_out: CubeTensor,
    x: CubeTensor,
    gamma: CubeTensor,
    epsilon: f32,
) -> [CubeTensor; 3] {
    let [d_out, x, gamma] = [d_out, x, gamma].map(into_contiguous);
    let [rows, width] = x.meta.shape().dims();
    let (client, dtype) = (x.client.clone(), dtype_to_storage_type(x.dtype));
    let d_x = empty(&x, x.meta.shape().clone(), x.dtype);
    // mean and inverse standard deviation of each row
    let statistics = empty(&x, Shape::new([rows, 2]), x.dtype);
    let units = units_for(&x, width);
    backward::launch(
        &client,
        one_cube_per_row(&x, rows),
        CubeDim::new_1d(units as u32),
        d_out.clone().into_tensor_arg(),
        x.clone().into_tensor_arg(),
        gamma.into_tensor_arg(),
        d_x.clone().into_tensor_arg(),
        statistics.clone().into_tensor_arg(),
        epsilon,
        units,
        dtype,
    );
    let part = || empty(&x, Shape::new(part_shape([rows, width])), x.dtype);
    let (of_gamma, of_beta) = (part(), part());
    let elements = of_gamma.meta.shape().num_elements();
    let cube = CubeDim::new(&client, elements);
    let count = calculate_cube_count_elemwise(&client, elements, cube);
    parameter_parts::launch(
        &client,
        count,
        cube,
        d_out.into_tensor_arg(),
        x.into_tensor_arg(),
        statistics.into_tensor_arg(),
        of_gamma.clone().into_tensor_arg(),
        of_beta.clone().into_tensor_arg(),
        dtype,
    );
    [d_x, of_gamma, of_beta]
}

/// The shape of the parts of the parameters' gradients for `[rows, width]`.
pub(super) fn part_shape([rows, width]: [usize; 2]) -> [usize; 2] {
    [rows.div_ceil(ROWS_PER_PART).max(1), width]
}

/// The mean and the inverse standard deviation of the row that starts at `base`.
#[cube]
fn moments<F: Float>(
    x: &Tensor<F>,
    base: usize,
    width: usize,
    epsilon: f32,
    sums: &mut Shared<[f32]>,
    #[comptime] units: usize,
) -> (f32, f32) {
    let unit = UNIT_POS as usize;
    let mut own = f32::new(0.0);
    for i in range_stepped(unit, width, units) {
        own += f32::cast_from(x[base + i]);
    }
    let mean = total(own, sums, units) / f32::cast_from(width);
    let mut own = f32::new(0.0);
    for i in range_stepped(unit, width, units) {
        let difference = f32::cast_from(x[base + i]) - mean;
        own += difference * difference;
    }
    let variance = total(own, sums, units) / f32::cast_from(width);
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[cube(launch)]
fn forward<F: Float>(
    x: &Tensor<F>,
    gamma: &Tensor<F>,
    beta: &Tensor<F>,
    out: &mut Tensor<F>,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let width = x.shape(1);
    let base = own_row(x.shape(0)) * width;
    let mut sums = Shared::<[f32]>::new_slice(units);
    let (mean, inverse) = moments::<F>(x, base, width, epsilon, &mut sums, units);
    for i in range_stepped(UNIT_POS as usize, width, units) {
        let normal = (f32::cast_from(x[base + i]) - mean) * inverse;
        out[base + i] = F::cast_from(normal) * gamma[i] + beta[i];
    }
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn backward<F: Float>(
    d_out: &Tensor<F>,
    x: &Tensor<F>,
    gamma: &Tensor<F>,
    d_x: &mut Tensor<F>,
    statistics: &mut Tensor<F>,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let width = x.shape(1);
    let row = own_row(x.shape(0));
    let base = row * width;
    let mut sums = Shared::<[f32]>::new_slice(units);
    let (mean, inverse) = moments::<F>(x, base, width, epsilon, &mut sums, units);
    // with g = d_out * gamma and the normalized row n: d_x = (g - mean(g) - n mean(g n)) / deviation
    let mut own = f32::new(0.0);
    let mut own_normal = f32::new(0.0);
    for i in range_stepped(UNIT_POS as usize, width, units) {
        let g = f32::cast_from(d_out[base + i] * gamma[i]);
        own += g;
        own_normal += g * (f32::cast_from(x[base + i]) - mean) * inverse;
    }
    let of_g = total(own, &mut sums, units) / f32::cast_from(width);
    let of_normal = total(own_normal, &mut sums, units) / f32::cast_from(width);
    for i in range_stepped(UNIT_POS as usize, width, units) {
        let g = f32::cast_from(d_out[base + i] * gamma[i]);
        let normal = (f32::cast_from(x[base + i]) - mean) * inverse;
        d_x[base + i] = F::cast_from((g - of_g - normal * of_normal) * inverse);
    }
    if UNIT_POS == 0 {
        statistics[2 * row] = F::cast_from(mean);
        statistics[2 * row + 1] = F::cast_from(inverse);
    }
}

/// Adds the gradients of `gamma` and `beta` over the rows of a part. One unit per part and column.
#[cube(launch)]
fn parameter_parts<F: Float>(
    d_out: &Tensor<F>,
    x: &Tensor<F>,
    statistics: &Tensor<F>,
    of_gamma: &mut Tensor<F>,
    of_beta: &mut Tensor<F>,
    #[define(F)] _type: ElemType,
) {
    let (rows, width) = (x.shape(0), x.shape(1));
    if ABSOLUTE_POS >= of_gamma.len() {
        terminate!();
    }
    let column = ABSOLUTE_POS % width;
    let part = ABSOLUTE_POS / width;
    let first = part * ROWS_PER_PART;
    let mut end = first + ROWS_PER_PART;
    if end > rows {
        end = rows;
    }
    let mut d_gamma = F::new(0.0);
    let mut d_beta = F::new(0.0);
    for row in first..end {
        let d = d_out[row * width + column];
        d_gamma += d * (x[row * width + column] - statistics[2 * row]) * statistics[2 * row + 1];
        d_beta += d;
    }
    of_gamma[ABSOLUTE_POS] = d_gamma;
    of_beta[ABSOLUTE_POS] = d_beta;
}
