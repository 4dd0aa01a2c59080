//! The kernels of [attention over a KV cache](super::cached_attention).

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::rotation::{add_rotated, rotated};

/// Keys per unit. Few sequences with a long context still fill a GPU.
pub(super) const KEYS_PER_PART: usize = 64;

/// Attends from `q` to the keys `first..end` of the slot and head at `base`. Adds the weighted values to
/// `sum`; `softmax` gets the largest score and the sum of the weights.
#[cube]
fn attend<F: Float, C: Float>(
    q: &Array<F>,
    sum: &mut Array<F>,
    softmax: &mut Array<F>,
    keys: &Tensor<C>,
    values: &Tensor<C>,
    base: usize,
    first: usize,
    end: usize,
    #[comptime] dim: usize,
) {
    let mut most = F::new(-1e30);
    let mut weights = F::new(0.0);
    for j in first..end {
        let at = base + j * dim;
        let mut score = F::new(0.0);
        #[unroll]
        for d in 0..dim {
            score += q[d] * F::cast_from(keys[at + d]);
        }
        let mut shrink = F::new(1.0);
        if score > most {
            shrink = (most - score).exp();
            most = score;
        }
        let weight = (score - most).exp();
        weights = weights * shrink + weight;
        #[unroll]
        for d in 0..dim {
            sum[d] = sum[d] * shrink + weight * F::cast_from(values[at + d]);
        }
    }
    softmax[0] = most;
    softmax[1] = weights;
}

/// Writes the new positions of a row and head, and attends from the kept ones. One unit per row and
/// head.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
pub(super) fn attend_few<F: Float, C: Float, I: Int>(
    qkv: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    starts: &Tensor<I>,
    slots: &Tensor<I>,
    keys: &mut Tensor<C>,
    values: &mut Tensor<C>,
    out: &mut Tensor<F>,
    keep: usize,
    group: usize,
    scale: f32,
    #[comptime] half: usize,
    #[comptime] dim: usize,
    #[define(F, C, I)] _types: [ElemType; 3],
) {
    let (rows, time) = (qkv.shape(0), qkv.shape(1));
    let (heads, capacity) = (keys.shape(1), keys.shape(2));
    if ABSOLUTE_POS >= rows * heads {
        terminate!();
    }
    let head = ABSOLUTE_POS % heads;
    let row = ABSOLUTE_POS / heads;
    let start = usize::cast_from(starts[row % starts.len()]);
    let base = (usize::cast_from(slots[row]) * heads + head) * capacity * dim;
    let mut vector = Array::<F>::new(dim);
    for t in 0..time {
        let from = ((row * time + t) * heads + head) * 3 * dim;
        let angles = usize::cast_from(positions[(row * time + t) % positions.len()]) * half;
        #[unroll]
        for d in 0..dim {
            vector[d] = F::new(0.0);
        }
        add_rotated::<F>(&mut vector, F::new(1.0), qkv, from + dim, cos, sin, angles, half, dim);
        let to = base + (start + t) * dim;
        #[unroll]
        for d in 0..dim {
            keys[to + d] = C::cast_from(vector[d]);
            values[to + d] = C::cast_from(qkv[from + 2 * dim + d]);
        }
    }
    let mut sum = Array::<F>::new(dim);
    let mut softmax = Array::<F>::new(2usize);
    for i in 0..keep {
        let t = time - keep + i;
        let from = ((row * time + t) * heads + head) * 3 * dim;
        let angles = usize::cast_from(positions[(row * time + t) % positions.len()]) * half;
        #[unroll]
        for d in 0..dim {
            vector[d] = F::new(0.0);
            sum[d] = F::new(0.0);
        }
        let by = F::cast_from(scale);
        add_rotated::<F>(&mut vector, by, qkv, from, cos, sin, angles, half, dim);
        let mut end = ((start + t) / group + 1) * group;
        if end > start + time {
            end = start + time;
        }
        attend::<F, C>(&vector, &mut sum, &mut softmax, &*keys, &*values, base, 0, end, dim);
        let to = ((row * keep + i) * heads + head) * dim;
        #[unroll]
        for d in 0..dim {
            out[to + d] = sum[d] / softmax[1];
        }
    }
}

/// Attends from one new position per row to one part of the keys. The unit of the part that contains
/// the new position writes its key and value. One unit per row, head and part.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
pub(super) fn attend_one<F: Float, C: Float, I: Int>(
    qkv: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    starts: &Tensor<I>,
    slots: &Tensor<I>,
    keys: &mut Tensor<C>,
    values: &mut Tensor<C>,
    partial: &mut Tensor<F>,
    parts: usize,
    scale: f32,
    #[comptime] half: usize,
    #[comptime] dim: usize,
    #[define(F, C, I)] _types: [ElemType; 3],
) {
    let rows = qkv.shape(0);
    let (heads, capacity) = (keys.shape(1), keys.shape(2));
    let part = ABSOLUTE_POS % parts;
    let query = ABSOLUTE_POS / parts;
    if query >= rows * heads {
        terminate!();
    }
    let head = query % heads;
    let row = query / heads;
    let start = usize::cast_from(starts[row % starts.len()]);
    let base = (usize::cast_from(slots[row]) * heads + head) * capacity * dim;
    let from = query * 3 * dim;
    let angles = usize::cast_from(positions[row % positions.len()]) * half;
    let first = part * KEYS_PER_PART;
    let mut end = start + 1;
    if end > first + KEYS_PER_PART {
        end = first + KEYS_PER_PART;
    }

    let mut q = Array::<F>::new(dim);
    let mut sum = Array::<F>::new(dim);
    if start >= first && start < first + KEYS_PER_PART {
        #[unroll]
        for d in 0..dim {
            sum[d] = F::new(0.0);
        }
        add_rotated::<F>(&mut sum, F::new(1.0), qkv, from + dim, cos, sin, angles, half, dim);
        let to = base + start * dim;
        #[unroll]
        for d in 0..dim {
            keys[to + d] = C::cast_from(sum[d]);
            values[to + d] = C::cast_from(qkv[from + 2 * dim + d]);
        }
    }
    #[unroll]
    for d in 0..dim {
        q[d] = F::new(0.0);
        sum[d] = F::new(0.0);
    }
    add_rotated::<F>(&mut q, F::cast_from(scale), qkv, from, cos, sin, angles, half, dim);
    let mut softmax = Array::<F>::new(2usize);
    attend::<F, C>(&q, &mut sum, &mut softmax, &*keys, &*values, base, first, end, dim);
    let to = (query * parts + part) * (dim + 2);
    #[unroll]
    for d in 0..dim {
        partial[to + d] = sum[d];
    }
    partial[to + dim] = softmax[0];
    partial[to + dim + 1] = softmax[1];
}

/// Rotates the queries and keys of new positions, scales the queries, and writes keys and values to the
/// cache. One unit per row, position, head and dimension.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
pub(super) fn write<F: Float, C: Float, I: Int, G: Float>(
    qkv: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    positions: &Tensor<I>,
    starts: &Tensor<I>,
    slots: &Tensor<I>,
    queries: &mut Tensor<G>,
    keys: &mut Tensor<C>,
    values: &mut Tensor<C>,
    time: usize,
    keep: usize,
    scale: f32,
    half: usize,
    #[define(F, C, I, G)] _types: [ElemType; 4],
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
    // one row of positions serves all rows
    let angles = usize::cast_from(positions[(row * time + t) % positions.len()]) * half;
    let one = F::new(1.0);
    let query = rotated::<F>(qkv, from, d, cos, sin, angles, half, one);
    let key = rotated::<F>(qkv, from + dim, d, cos, sin, angles, half, one);
    let start = usize::cast_from(starts[row % starts.len()]);
    let slot = usize::cast_from(slots[row]);
    let to = ((slot * heads + head) * capacity + start + t) * dim + d;
    keys[to] = C::cast_from(key);
    values[to] = C::cast_from(qkv[from + 2 * dim + d]);
    if t + keep >= time {
        let to = ((row * heads + head) * keep + t + keep - time) * dim + d;
        queries[to] = G::cast_from(query * F::cast_from(scale));
    }
}

/// Copies the first positions of the slots of `cache`. Positions that a row has not written are 0. One
/// unit per row, head, position and dimension.
#[cube(launch)]
pub(super) fn hold<C: Float, I: Int, G: Float>(
    cache: &Tensor<C>,
    starts: &Tensor<I>,
    slots: &Tensor<I>,
    out: &mut Tensor<G>,
    time: usize,
    #[define(C, I, G)] _types: [ElemType; 3],
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let (heads, count, dim) = (out.shape(1), out.shape(2), out.shape(3));
    let d = ABSOLUTE_POS % dim;
    let position = ABSOLUTE_POS / dim % count;
    let head = ABSOLUTE_POS / (dim * count) % heads;
    let row = ABSOLUTE_POS / (dim * count * heads);
    let slot = usize::cast_from(slots[row]);
    let mut value = G::new(0.0);
    if position < usize::cast_from(starts[row % starts.len()]) + time {
        let at = ((slot * heads + head) * cache.shape(2) + position) * dim + d;
        value = G::cast_from(cache[at]);
    }
    out[ABSOLUTE_POS] = value;
}

/// Attends to one part of the keys. One unit per row, head, query and part.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel takes each buffer as an argument")]
pub(super) fn attend_part<F: Float, C: Float, I: Int>(
    queries: &Tensor<F>,
    keys: &Tensor<C>,
    values: &Tensor<C>,
    starts: &Tensor<I>,
    slots: &Tensor<I>,
    partial: &mut Tensor<F>,
    time: usize,
    group: usize,
    capacity: usize,
    parts: usize,
    #[comptime] dim: usize,
    #[define(F, C, I)] _types: [ElemType; 3],
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
    #[unroll]
    for d in 0..dim {
        q[d] = queries[query * dim + d];
        sum[d] = F::new(0.0);
    }
    let base = (slot * heads + head) * capacity * dim;
    let mut softmax = Array::<F>::new(2usize);
    attend::<F, C>(&q, &mut sum, &mut softmax, keys, values, base, first, end, dim);
    let to = (query * parts + part) * (dim + 2);
    #[unroll]
    for d in 0..dim {
        partial[to + d] = sum[d];
    }
    partial[to + dim] = softmax[0];
    partial[to + dim + 1] = softmax[1];
}

/// Combines the parts of each query. One unit per row, head, query and dimension.
#[cube(launch)]
pub(super) fn combine<F: Float>(
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
