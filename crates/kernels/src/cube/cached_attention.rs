//! Attention over a KV cache: new keys and values are written to their slots in place, then each
//! query attends to its slot in parts, which are combined at the end.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Keys per unit. Few sequences with a long context still fill a GPU.
const KEYS_PER_PART: usize = 64;

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) heads: usize,
    /// Positions per group of the causal mask.
    pub(crate) group: usize,
    /// Queries per row: the last new positions.
    pub(crate) keep: usize,
    /// The largest number of keys of a row.
    pub(crate) keys: usize,
}

/// The inputs besides the cache.
pub(crate) struct Inputs {
    /// `[rows, time, heads * 3 * dim]`
    pub(crate) qkv: CubeTensor,
    /// Cosines and sines, `[positions, half]` each
    pub(crate) table: [CubeTensor; 2],
    /// Rows of the table, `[1 or rows, time]`
    pub(crate) positions: CubeTensor,
    /// The first new position of each row, `[1 or rows]`
    pub(crate) starts: CubeTensor,
    /// The slot of each row, `[rows]`
    pub(crate) slots: CubeTensor,
}

/// Returns the output `[rows, keep, heads * dim]` and the cache.
pub(crate) fn cached_attention(
    cache: [CubeTensor; 2],
    inputs: Inputs,
    sizes: Sizes,
) -> (CubeTensor, [CubeTensor; 2]) {
    let Sizes { heads, group, keep, keys: most_keys } = sizes;
    // a cache that something else refers to is copied; the engine holds the only reference
    let [keys, values] = cache.map(|cache| {
        let cache = into_contiguous(cache);
        if cache.handle.can_mut() { cache } else { cache.copy() }
    });
    let qkv = into_contiguous(inputs.qkv);
    let table = inputs.table.map(into_contiguous);
    let [rows, time, width] = qkv.meta.shape().dims();
    let [_, _, capacity, dim] = keys.meta.shape().dims();
    let half = table[0].meta.shape()[1];
    let (client, dtype) = (qkv.client.clone(), qkv.dtype);
    let device = qkv.device.clone();
    let new = |shape: Shape| {
        let buffer = client.empty(shape.num_elements() * size_of::<f32>());
        CubeTensor::new_contiguous(client.clone(), device.clone(), shape, buffer, DType::F32)
    };
    let types = [dtype_to_storage_type(dtype), dtype_to_storage_type(inputs.slots.dtype)];

    let queries = new(Shape::new([rows, heads, keep, dim]));
    let units = rows * time * width / 3;
    let units_of = |units: usize| {
        let cube = CubeDim::new(&client, units);
        (calculate_cube_count_elemwise(&client, units, cube), cube)
    };
    let (count, cube) = units_of(units);
    let [cos, sin] = table;
    write::launch(
        &client,
        count,
        cube,
        qkv.into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        inputs.positions.into_tensor_arg(),
        inputs.starts.clone().into_tensor_arg(),
        inputs.slots.clone().into_tensor_arg(),
        queries.clone().into_tensor_arg(),
        keys.clone().into_tensor_arg(),
        values.clone().into_tensor_arg(),
        time,
        keep,
        half,
        types,
    );

    let parts = most_keys.div_ceil(KEYS_PER_PART);
    let all_queries = rows * heads * keep;
    // the weighted sum of values, the largest score and the sum of weights of each part
    let partial = new(Shape::new([all_queries, parts, dim + 2]));
    let (count, cube) = units_of(all_queries * parts);
    attend_part::launch(
        &client,
        count,
        cube,
        queries.into_tensor_arg(),
        keys.clone().into_tensor_arg(),
        values.clone().into_tensor_arg(),
        inputs.starts.into_tensor_arg(),
        inputs.slots.into_tensor_arg(),
        partial.clone().into_tensor_arg(),
        time,
        group,
        capacity,
        parts,
        (dim as f32).powf(-0.5),
        dim,
        types,
    );

    let out = new(Shape::new([rows, keep, heads * dim]));
    let (count, cube) = units_of(all_queries * dim);
    combine::launch(
        &client,
        count,
        cube,
        partial.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        heads,
        keep,
        dim,
        dtype_to_storage_type(dtype),
    );
    (out, [keys, values])
}

/// Rotates the queries and keys of new positions, and writes keys and values to the cache. One unit
/// per row, position, head and dimension.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn write<F: Float, I: Int>(
    qkv: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    starts: &Tensor<I>,
    slots: &Tensor<I>,
    queries: &mut Tensor<F>,
    keys: &mut Tensor<F>,
    values: &mut Tensor<F>,
    time: usize,
    keep: usize,
    half: usize,
    #[define(F, I)] _types: [ElemType; 2],
) {
    let (heads, capacity, dim) = (keys.shape(1), keys.shape(2), keys.shape(3));
    let rows = slots.len();
    if ABSOLUTE_POS >= rows * time * heads * dim {
        terminate!();
    }
    let d = ABSOLUTE_POS % dim;
    let head = ABSOLUTE_POS / dim % heads;
    let t = ABSOLUTE_POS / (dim * heads) % time;
    let row = ABSOLUTE_POS / (dim * heads * time);

    let from = ((row * time + t) * heads + head) * 3 * dim;
    let mut query = qkv[from + d];
    let mut key = qkv[from + dim + d];
    if d < 2 * half {
        let pair = d % half;
        // one row of positions serves all rows
        let position = usize::cast_from(positions[(row * time + t) % positions.len()]);
        let c = cos[position * half + pair];
        let mut s = sin[position * half + pair];
        let mut other = pair;
        if d < half {
            other = pair + half;
            s = F::new(0.0) - s;
        }
        query = query * c + qkv[from + other] * s;
        key = key * c + qkv[from + dim + other] * s;
    }
    let start = usize::cast_from(starts[row % starts.len()]);
    let slot = usize::cast_from(slots[row]);
    let to = ((slot * heads + head) * capacity + start + t) * dim + d;
    keys[to] = key;
    values[to] = qkv[from + 2 * dim + d];
    if t + keep >= time {
        queries[((row * heads + head) * keep + t + keep - time) * dim + d] = query;
    }
}

/// Attends to one part of the keys. One unit per row, head, query and part.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
fn attend_part<F: Float, I: Int>(
    queries: &Tensor<F>,
    keys: &Tensor<F>,
    values: &Tensor<F>,
    starts: &Tensor<I>,
    slots: &Tensor<I>,
    partial: &mut Tensor<F>,
    time: usize,
    group: usize,
    capacity: usize,
    parts: usize,
    scale: f32,
    #[comptime] dim: usize,
    #[define(F, I)] _types: [ElemType; 2],
) {
    let (heads, keep) = (queries.shape(1), queries.shape(2));
    let part = ABSOLUTE_POS % parts;
    let query = ABSOLUTE_POS / parts;
    let rows = slots.len();
    if query >= rows * heads * keep {
        terminate!();
    }
    let i = query % keep;
    let head = query / keep % heads;
    let row = query / (keep * heads);
    let start = usize::cast_from(starts[row % starts.len()]);
    let slot = usize::cast_from(slots[row]);

    // the keys up to the end of the query's group, as far as they are written
    let mut end = ((start + time - keep + i) / group + 1) * group;
    if end > start + time {
        end = start + time;
    }
    let first = part * KEYS_PER_PART;
    if end > first + KEYS_PER_PART {
        end = first + KEYS_PER_PART;
    }

    let mut q = Array::<F>::new(dim);
    let mut sum = Array::<F>::new(dim);
    for d in 0..dim {
        q[d] = queries[query * dim + d] * F::cast_from(scale);
        sum[d] = F::new(0.0);
    }
    let mut most = F::new(-1e30);
    let mut weights = F::new(0.0);
    let base = (slot * heads + head) * capacity * dim;
    for j in first..end {
        let at = base + j * dim;
        let mut score = F::new(0.0);
        for d in 0..dim {
            score += q[d] * keys[at + d];
        }
        if score > most {
            let shrink = (most - score).exp();
            weights *= shrink;
            for d in 0..dim {
                sum[d] *= shrink;
            }
            most = score;
        }
        let weight = (score - most).exp();
        weights += weight;
        for d in 0..dim {
            sum[d] += weight * values[at + d];
        }
    }
    let to = (query * parts + part) * (dim + 2);
    for d in 0..dim {
        partial[to + d] = sum[d];
    }
    partial[to + dim] = most;
    partial[to + dim + 1] = weights;
}

/// Combines the parts of each query. One unit per row, head, query and dimension.
#[cube(launch)]
fn combine<F: Float>(
    partial: &Tensor<F>,
    out: &mut Tensor<F>,
    heads: usize,
    keep: usize,
    dim: usize,
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let parts = partial.shape(1);
    let d = ABSOLUTE_POS % dim;
    let query = ABSOLUTE_POS / dim;
    let from = query * parts * (dim + 2);
    let mut most = F::new(-1e30);
    for part in 0..parts {
        let other = partial[from + part * (dim + 2) + dim];
        if other > most {
            most = other;
        }
    }
    let mut sum = F::new(0.0);
    let mut weights = F::new(0.0);
    for part in 0..parts {
        let at = from + part * (dim + 2);
        let weight = (partial[at + dim] - most).exp();
        sum += weight * partial[at + d];
        weights += weight * partial[at + dim + 1];
    }
    let i = query % keep;
    let head = query / keep % heads;
    let row = query / (keep * heads);
    out[((row * keep + i) * heads + head) * dim + d] = sum / weights;
}
