//! The fused projection as rotated queries, rotated keys and values, and back.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// The angles of a call: cosines and sines `[positions, half]`, and the rows of these tables for each
/// position, `[1 or rows, time]`.
pub(super) struct Angles {
    pub(super) cos: CubeTensor,
    pub(super) sin: CubeTensor,
    pub(super) positions: CubeTensor,
}

impl Angles {
    pub(super) fn contiguous(cos: CubeTensor, sin: CubeTensor, positions: CubeTensor) -> Self {
        let [cos, sin, positions] = [cos, sin, positions].map(into_contiguous);
        Self { cos, sin, positions }
    }

    /// Rotated pairs of dimensions.
    pub(super) fn half(&self) -> usize {
        self.cos.meta.shape()[1]
    }
}

/// A new tensor like `like`, without defined values.
pub(super) fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let buffer = like.client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, buffer, dtype)
}

/// Element `d` of the head vector that starts at `from`, rotated by the angles that start at
/// `angles`. `direction` is 1, or -1 for the inverse rotation.
#[cube]
pub(super) fn rotated<F: Float>(
    x: &Tensor<F>,
    from: usize,
    d: usize,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    angles: usize,
    half: usize,
    direction: F,
) -> F {
    let mut value = x[from + d];
    if d < 2 * half {
        let pair = d % half;
        let mut s = sin[angles + pair] * direction;
        let mut other = pair;
        if d < half {
            other = pair + half;
            s = F::new(0.0) - s;
        }
        value = value * cos[angles + pair] + x[from + other] * s;
    }
    value
}

/// The dot product of `a` and the head vector of `x` that starts at `from`, rotated by the angles that
/// start at `angles`.
#[cube]
pub(super) fn dot_rotated<F: Float>(
    a: &Array<F>,
    x: &Tensor<F>,
    from: usize,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    angles: usize,
    #[comptime] half: usize,
    #[comptime] dim: usize,
) -> F {
    let mut sum = F::new(0.0);
    #[unroll]
    for pair in 0..half {
        let (c, s) = (cos[angles + pair], sin[angles + pair]);
        let (first, second) = (x[from + pair], x[from + pair + half]);
        sum += a[pair] * (first * c - second * s);
        sum += a[pair + half] * (second * c + first * s);
    }
    #[unroll]
    for d in 2 * half..dim {
        sum += a[d] * x[from + d];
    }
    sum
}

/// Adds `by` times the head vector of `x` that starts at `from`, rotated, to `sum`.
#[cube]
pub(super) fn add_rotated<F: Float>(
    sum: &mut Array<F>,
    by: F,
    x: &Tensor<F>,
    from: usize,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    angles: usize,
    #[comptime] half: usize,
    #[comptime] dim: usize,
) {
    #[unroll]
    for pair in 0..half {
        let (c, s) = (cos[angles + pair], sin[angles + pair]);
        let (first, second) = (x[from + pair], x[from + pair + half]);
        sum[pair] += by * (first * c - second * s);
        sum[pair + half] += by * (second * c + first * s);
    }
    #[unroll]
    for d in 2 * half..dim {
        sum[d] += by * x[from + d];
    }
}

/// Writes `gradient`, with respect to a rotated vector, as the gradient with respect to the vector.
#[cube]
pub(super) fn write_unrotated<F: Float>(
    gradient: &Array<F>,
    out: &mut Tensor<F>,
    to: usize,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    angles: usize,
    #[comptime] half: usize,
    #[comptime] dim: usize,
) {
    #[unroll]
    for pair in 0..half {
        let (c, s) = (cos[angles + pair], sin[angles + pair]);
        out[to + pair] = gradient[pair] * c + gradient[pair + half] * s;
        out[to + pair + half] = gradient[pair + half] * c - gradient[pair] * s;
    }
    #[unroll]
    for d in 2 * half..dim {
        out[to + d] = gradient[d];
    }
}

/// Queries times `scale`, keys and values of `qkv` `[rows, time, heads * 3 * dim]` in `format`,
/// `[rows, heads, time, dim]` each.
pub(super) fn split(
    qkv: CubeTensor,
    angles: Angles,
    heads: usize,
    format: DType,
) -> [CubeTensor; 3] {
    let qkv = into_contiguous(qkv);
    let [rows, time, width] = qkv.meta.shape().dims();
    let (dim, half) = (width / heads / 3, angles.half());
    let new = || empty(&qkv, Shape::new([rows, heads, time, dim]), format);
    let [q, k, v] = [new(), new(), new()];
    let units = rows * time * heads * dim;
    let client = qkv.client.clone();
    let cube = CubeDim::new(&client, units);
    let count = calculate_cube_count_elemwise(&client, units, cube);
    let types = [qkv.dtype, format, angles.positions.dtype].map(dtype_to_storage_type);
    split_kernel::launch(
        &client,
        count,
        cube,
        qkv.into_tensor_arg(),
        angles.cos.into_tensor_arg(),
        angles.sin.into_tensor_arg(),
        angles.positions.into_tensor_arg(),
        q.clone().into_tensor_arg(),
        k.clone().into_tensor_arg(),
        v.clone().into_tensor_arg(),
        half,
        (dim as f32).powf(-0.5),
        types,
    );
    [q, k, v]
}

/// One unit per element of the queries.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn split_kernel<F: Float, G: Float, I: Int>(
    qkv: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    q: &mut Tensor<G>,
    k: &mut Tensor<G>,
    v: &mut Tensor<G>,
    half: usize,
    scale: f32,
    #[define(F, G, I)] _types: [ElemType; 3],
) {
    if ABSOLUTE_POS >= q.len() {
        terminate!();
    }
    let (heads, time, dim) = (q.shape(1), q.shape(2), q.shape(3));
    let d = ABSOLUTE_POS % dim;
    let t = ABSOLUTE_POS / dim % time;
    let head = ABSOLUTE_POS / (dim * time) % heads;
    let row = ABSOLUTE_POS / (dim * time * heads);
    let from = ((row * time + t) * heads + head) * 3 * dim;
    let angles = usize::cast_from(positions[(row * time + t) % positions.len()]) * half;
    let one = F::new(1.0);
    let query = rotated::<F>(qkv, from, d, cos, sin, angles, half, one);
    let key = rotated::<F>(qkv, from + dim, d, cos, sin, angles, half, one);
    q[ABSOLUTE_POS] = G::cast_from(query * F::cast_from(scale));
    k[ABSOLUTE_POS] = G::cast_from(key);
    v[ABSOLUTE_POS] = G::cast_from(qkv[from + 2 * dim + d]);
}

/// The gradient of [`split`]: `[rows, time, heads * 3 * dim]` from the gradients of its outputs.
pub(super) fn join(gradients: [CubeTensor; 3], angles: Angles) -> CubeTensor {
    let [dq, dk, dv] = gradients.map(into_contiguous);
    let [rows, heads, time, dim] = dq.meta.shape().dims();
    let half = angles.half();
    let out = empty(&dq, Shape::new([rows, time, heads * 3 * dim]), dq.dtype);
    let units = rows * time * heads * dim;
    let client = dq.client.clone();
    let cube = CubeDim::new(&client, units);
    let count = calculate_cube_count_elemwise(&client, units, cube);
    let types = [dq.dtype, angles.positions.dtype].map(dtype_to_storage_type);
    join_kernel::launch(
        &client,
        count,
        cube,
        dq.into_tensor_arg(),
        dk.into_tensor_arg(),
        dv.into_tensor_arg(),
        angles.cos.into_tensor_arg(),
        angles.sin.into_tensor_arg(),
        angles.positions.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        half,
        (dim as f32).powf(-0.5),
        types,
    );
    out
}

/// One unit per element of the queries' gradient.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn join_kernel<F: Float, I: Int>(
    dq: &Tensor<F>,
    dk: &Tensor<F>,
    dv: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    out: &mut Tensor<F>,
    half: usize,
    scale: f32,
    #[define(F, I)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= dq.len() {
        terminate!();
    }
    let (heads, time, dim) = (dq.shape(1), dq.shape(2), dq.shape(3));
    let d = ABSOLUTE_POS % dim;
    let t = ABSOLUTE_POS / dim % time;
    let head = ABSOLUTE_POS / (dim * time) % heads;
    let row = ABSOLUTE_POS / (dim * time * heads);
    let from = ABSOLUTE_POS - d;
    let to = ((row * time + t) * heads + head) * 3 * dim + d;
    let angles = usize::cast_from(positions[(row * time + t) % positions.len()]) * half;
    let back = F::new(-1.0);
    let query = rotated::<F>(dq, from, d, cos, sin, angles, half, back);
    out[to] = query * F::cast_from(scale);
    out[to + dim] = rotated::<F>(dk, from, d, cos, sin, angles, half, back);
    out[to + 2 * dim] = dv[ABSOLUTE_POS];
}
