//! Self-attention over a few positions, with its derivative. A unit keeps one query or one key in
//! registers and walks over the other positions; no scores are stored.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::rotation::{Angles, add_rotated, dot_rotated, empty, rotated, write_unrotated};

/// The largest number of positions.
pub(super) const MAX_TIME: usize = 32;
/// The largest width of a head, with which the gradients of a key and a value stay in registers.
pub(super) const MAX_DIM: usize = 64;
/// Values per query that the derivative with respect to the keys needs: the largest score, the sum of
/// the weights, and the weighted mean of the gradients of the weights.
const STATISTICS: usize = 3;

/// Returns the output `[rows, time, heads * dim]` for `qkv` `[rows, time, heads * 3 * dim]`.
pub(super) fn attention(qkv: CubeTensor, angles: Angles, heads: usize, group: usize) -> CubeTensor {
    let qkv = into_contiguous(qkv);
    let [rows, time, width] = qkv.meta.shape().dims();
    let (dim, half) = (width / heads / 3, angles.half());
    let out = empty(&qkv, Shape::new([rows, time, heads * dim]), qkv.dtype);
    let client = qkv.client.clone();
    let units = rows * time * heads;
    let cube = CubeDim::new(&client, units);
    let count = calculate_cube_count_elemwise(&client, units, cube);
    let types = [qkv.dtype, angles.positions.dtype].map(dtype_to_storage_type);
    forward::launch(
        &client,
        count,
        cube,
        qkv.into_tensor_arg(),
        angles.cos.into_tensor_arg(),
        angles.sin.into_tensor_arg(),
        angles.positions.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        heads,
        group,
        (dim as f32).powf(-0.5),
        half,
        dim,
        types,
    );
    out
}

/// Returns the gradient with respect to `qkv` for the gradient `d_out` of the output.
pub(super) fn gradient(
    d_out: CubeTensor,
    qkv: CubeTensor,
    angles: Angles,
    heads: usize,
    group: usize,
) -> CubeTensor {
    let [d_out, qkv] = [d_out, qkv].map(into_contiguous);
    let [rows, time, width] = qkv.meta.shape().dims();
    let (dim, half) = (width / heads / 3, angles.half());
    let scale = (dim as f32).powf(-0.5);
    let d_qkv = empty(&qkv, qkv.meta.shape().clone(), qkv.dtype);
    let statistics = empty(&qkv, Shape::new([rows, heads, time, STATISTICS]), qkv.dtype);
    let client = qkv.client.clone();
    let units = rows * time * heads;
    let cube = CubeDim::new(&client, units);
    let count = calculate_cube_count_elemwise(&client, units, cube);
    let types = [qkv.dtype, angles.positions.dtype].map(dtype_to_storage_type);
    query_gradient::launch(
        &client,
        count.clone(),
        cube,
        qkv.clone().into_tensor_arg(),
        d_out.clone().into_tensor_arg(),
        angles.cos.clone().into_tensor_arg(),
        angles.sin.clone().into_tensor_arg(),
        angles.positions.clone().into_tensor_arg(),
        d_qkv.clone().into_tensor_arg(),
        statistics.clone().into_tensor_arg(),
        heads,
        group,
        scale,
        half,
        dim,
        types,
    );
    key_gradient::launch(
        &client,
        count,
        cube,
        qkv.into_tensor_arg(),
        d_out.into_tensor_arg(),
        angles.cos.into_tensor_arg(),
        angles.sin.into_tensor_arg(),
        angles.positions.into_tensor_arg(),
        statistics.into_tensor_arg(),
        d_qkv.clone().into_tensor_arg(),
        heads,
        group,
        scale,
        half,
        dim,
        types,
    );
    d_qkv
}

/// One past the last key that query `t` of `time` sees.
#[cube]
fn visible(t: usize, time: usize, group: usize) -> usize {
    let mut end = (t / group + 1) * group;
    if end > time {
        end = time;
    }
    end
}

/// The dot product of `count` elements of `a` and `b`. The loop is not unrolled: with its elements in
/// registers, the gradients of a head of width 64 would not fit.
#[cube]
fn dot<F: Float>(a: &Tensor<F>, from: usize, b: &Tensor<F>, start: usize, count: usize) -> F {
    let mut sum = F::new(0.0);
    for d in 0..count {
        sum += a[from + d] * b[start + d];
    }
    sum
}

/// The dot product of two head vectors, each rotated by its angles. Not unrolled, as [`dot`].
#[cube]
fn dot_both_rotated<F: Float>(
    x: &Tensor<F>,
    a: usize,
    angles_of_a: usize,
    b: usize,
    angles_of_b: usize,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    half: usize,
    count: usize,
) -> F {
    let one = F::new(1.0);
    let mut sum = F::new(0.0);
    for d in 0..count {
        sum += rotated::<F>(x, a, d, cos, sin, angles_of_a, half, one)
            * rotated::<F>(x, b, d, cos, sin, angles_of_b, half, one);
    }
    sum
}

/// One unit per row, position and head.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn forward<F: Float, I: Int>(
    qkv: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    out: &mut Tensor<F>,
    heads: usize,
    group: usize,
    scale: f32,
    #[comptime] half: usize,
    #[comptime] dim: usize,
    #[define(F, I)] _types: [ElemType; 2],
) {
    let (rows, time) = (qkv.shape(0), qkv.shape(1));
    if ABSOLUTE_POS >= rows * time * heads {
        terminate!();
    }
    let head = ABSOLUTE_POS % heads;
    let t = ABSOLUTE_POS / heads % time;
    let row = ABSOLUTE_POS / (heads * time);
    let one = F::new(1.0);

    let from = ABSOLUTE_POS * 3 * dim;
    let angles = usize::cast_from(positions[(row * time + t) % positions.len()]) * half;
    let mut q = Array::<F>::new(dim);
    let mut sum = Array::<F>::new(dim);
    #[unroll]
    for d in 0..dim {
        q[d] = F::new(0.0);
        sum[d] = F::new(0.0);
    }
    add_rotated::<F>(&mut q, F::cast_from(scale), qkv, from, cos, sin, angles, half, dim);
    let mut most = F::new(-1e30);
    let mut weights = F::new(0.0);
    for j in 0..visible(t, time, group) {
        let from = ((row * time + j) * heads + head) * 3 * dim;
        let angles = usize::cast_from(positions[(row * time + j) % positions.len()]) * half;
        let score = dot_rotated::<F>(&q, qkv, from + dim, cos, sin, angles, half, dim);
        let mut shrink = one;
        if score > most {
            shrink = (most - score).exp();
            most = score;
        }
        let weight = (score - most).exp();
        weights = weights * shrink + weight;
        #[unroll]
        for d in 0..dim {
            sum[d] = sum[d] * shrink + weight * qkv[from + 2 * dim + d];
        }
    }
    #[unroll]
    for d in 0..dim {
        out[ABSOLUTE_POS * dim + d] = sum[d] / weights;
    }
}

/// Writes the gradients of the queries and the statistics of their softmax. One unit per row, position
/// and head.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn query_gradient<F: Float, I: Int>(
    qkv: &Tensor<F>,
    d_out: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    d_qkv: &mut Tensor<F>,
    statistics: &mut Tensor<F>,
    heads: usize,
    group: usize,
    scale: f32,
    #[comptime] half: usize,
    #[comptime] dim: usize,
    #[define(F, I)] _types: [ElemType; 2],
) {
    let (rows, time) = (qkv.shape(0), qkv.shape(1));
    let width = qkv.shape(2) / heads / 3;
    if ABSOLUTE_POS >= rows * time * heads {
        terminate!();
    }
    let head = ABSOLUTE_POS % heads;
    let t = ABSOLUTE_POS / heads % time;
    let row = ABSOLUTE_POS / (heads * time);
    let one = F::new(1.0);

    let here = ABSOLUTE_POS * 3 * dim;
    let own = usize::cast_from(positions[(row * time + t) % positions.len()]) * half;
    let mut q = Array::<F>::new(dim);
    let mut d_q = Array::<F>::new(dim);
    #[unroll]
    for d in 0..dim {
        q[d] = F::new(0.0);
        d_q[d] = F::new(0.0);
    }
    add_rotated::<F>(&mut q, F::cast_from(scale), qkv, here, cos, sin, own, half, dim);
    let end = visible(t, time, group);
    let mut most = F::new(-1e30);
    let mut weights = F::new(0.0);
    let mut mean = F::new(0.0);
    for j in 0..end {
        let from = ((row * time + j) * heads + head) * 3 * dim;
        let angles = usize::cast_from(positions[(row * time + j) % positions.len()]) * half;
        let score = dot_rotated::<F>(&q, qkv, from + dim, cos, sin, angles, half, dim);
        let d_weight = dot::<F>(d_out, ABSOLUTE_POS * dim, qkv, from + 2 * dim, width);
        let mut shrink = one;
        if score > most {
            shrink = (most - score).exp();
            most = score;
        }
        let weight = (score - most).exp();
        weights = weights * shrink + weight;
        mean = mean * shrink + weight * d_weight;
    }
    mean /= weights;
    for j in 0..end {
        let from = ((row * time + j) * heads + head) * 3 * dim;
        let angles = usize::cast_from(positions[(row * time + j) % positions.len()]) * half;
        let score = dot_rotated::<F>(&q, qkv, from + dim, cos, sin, angles, half, dim);
        let d_weight = dot::<F>(d_out, ABSOLUTE_POS * dim, qkv, from + 2 * dim, width);
        let d_score = (score - most).exp() / weights * (d_weight - mean) * F::cast_from(scale);
        add_rotated::<F>(&mut d_q, d_score, qkv, from + dim, cos, sin, angles, half, dim);
    }
    write_unrotated::<F>(&d_q, d_qkv, here, cos, sin, own, half, dim);
    let to = ((row * heads + head) * time + t) * STATISTICS;
    statistics[to] = most;
    statistics[to + 1] = weights;
    statistics[to + 2] = mean;
}

/// Writes the gradients of the keys and values. One unit per row, position and head.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn key_gradient<F: Float, I: Int>(
    qkv: &Tensor<F>,
    d_out: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    statistics: &Tensor<F>,
    d_qkv: &mut Tensor<F>,
    heads: usize,
    group: usize,
    scale: f32,
    #[comptime] half: usize,
    #[comptime] dim: usize,
    #[define(F, I)] _types: [ElemType; 2],
) {
    let (rows, time) = (qkv.shape(0), qkv.shape(1));
    let width = qkv.shape(2) / heads / 3;
    if ABSOLUTE_POS >= rows * time * heads {
        terminate!();
    }
    let head = ABSOLUTE_POS % heads;
    let j = ABSOLUTE_POS / heads % time;
    let row = ABSOLUTE_POS / (heads * time);

    let here = ABSOLUTE_POS * 3 * dim;
    let own = usize::cast_from(positions[(row * time + j) % positions.len()]) * half;
    let mut d_k = Array::<F>::new(dim);
    let mut d_v = Array::<F>::new(dim);
    #[unroll]
    for d in 0..dim {
        d_k[d] = F::new(0.0);
        d_v[d] = F::new(0.0);
    }
    // the first query of the group that contains this key
    for t in j / group * group..time {
        let query = (row * time + t) * heads + head;
        let from = query * 3 * dim;
        let angles = usize::cast_from(positions[(row * time + t) % positions.len()]) * half;
        let score = F::cast_from(scale)
            * dot_both_rotated::<F>(qkv, from, angles, here + dim, own, cos, sin, half, width);
        let d_weight = dot::<F>(d_out, query * dim, qkv, here + 2 * dim, width);
        let at = ((row * heads + head) * time + t) * STATISTICS;
        let weight = (score - statistics[at]).exp() / statistics[at + 1];
        let d_score = weight * (d_weight - statistics[at + 2]) * F::cast_from(scale);
        add_rotated::<F>(&mut d_k, d_score, qkv, from, cos, sin, angles, half, dim);
        #[unroll]
        for d in 0..dim {
            d_v[d] += weight * d_out[query * dim + d];
        }
    }
    write_unrotated::<F>(&d_k, d_qkv, here + dim, cos, sin, own, half, dim);
    #[unroll]
    for d in 0..dim {
        d_qkv[here + 2 * dim + d] = d_v[d];
    }
}
