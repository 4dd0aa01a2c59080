//! Attention over a KV cache: new keys and values are written to their slots in place, then each query
//! attends to its slot.
//!
//! - A few positions over a short cache, as in a block of the token decoder, are one launch: a unit
//!   does all the work of a row and head.
//! - One position over a longer cache is a launch in which each unit attends to a part of the keys, and
//!   one that combines the parts. The unit of the last part also writes the new key and value.
//! - More positions, as in a prefill, are written by a launch before these two.
//! - Many queries, as in a prefill, are [written](write_cache), and attend by matrix products to the
//!   [held](held) positions of their rows (`operations.rs`).

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::cached_kernels::{
    KEYS_PER_PART, attend_few, attend_one, attend_part, combine, hold, write,
};
use super::rotation::empty;

/// The largest number of new positions that one unit writes and attends from.
const FEW: usize = 8;

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedSizes {
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

/// The cache, which can be written in place if nothing else refers to it. The engine holds the only
/// reference; otherwise the cache is copied.
fn writable(cache: [CubeTensor; 2]) -> [CubeTensor; 2] {
    cache.map(|cache| {
        let cache = into_contiguous(cache);
        debug_assert!(cache.handle.can_mut(), "a cache is copied on each step");
        if cache.handle.can_mut() { cache } else { cache.copy() }
    })
}

/// Writes the keys and values of new positions. Returns the rotated and scaled queries of the last
/// `keep` positions in `format`, `[rows, heads, keep, dim]`, and the cache.
pub(crate) fn write_cache(
    cache: [CubeTensor; 2],
    inputs: Inputs,
    keep: usize,
    format: DType,
) -> (CubeTensor, [CubeTensor; 2]) {
    let [keys, values] = writable(cache);
    let qkv = into_contiguous(inputs.qkv);
    let [cos, sin] = inputs.table.map(into_contiguous);
    let [positions, starts, slots] =
        [inputs.positions, inputs.starts, inputs.slots].map(into_contiguous);
    let [rows, time, _] = qkv.meta.shape().dims();
    let [_, heads, _, dim] = keys.meta.shape().dims();
    let half = cos.meta.shape()[1];
    let types = [qkv.dtype, keys.dtype, slots.dtype, format].map(dtype_to_storage_type);
    let queries = empty(&qkv, Shape::new([rows, heads, keep, dim]), format);
    let client = qkv.client.clone();
    let units = rows * time * heads * dim;
    let cube = CubeDim::new(&client, units);
    write::launch(
        &client,
        calculate_cube_count_elemwise(&client, units, cube),
        cube,
        qkv.into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        positions.into_tensor_arg(),
        starts.into_tensor_arg(),
        slots.into_tensor_arg(),
        queries.clone().into_tensor_arg(),
        keys.clone().into_tensor_arg(),
        values.clone().into_tensor_arg(),
        time,
        keep,
        (dim as f32).powf(-0.5),
        half,
        types,
    );
    (queries, [keys, values])
}

/// The first `count` positions of the slots, `[rows, heads, count, dim]` in `format`. Positions after
/// `starts` and `time` more are 0.
pub(crate) fn held(
    cache: CubeTensor,
    starts: CubeTensor,
    slots: CubeTensor,
    [time, count]: [usize; 2],
    format: DType,
) -> CubeTensor {
    let [cache, starts, slots] = [cache, starts, slots].map(into_contiguous);
    let [_, heads, _, dim] = cache.meta.shape().dims();
    let shape = Shape::new([slots.meta.shape()[0], heads, count, dim]);
    let units = shape.num_elements();
    let out = empty(&cache, shape, format);
    let types = [cache.dtype, slots.dtype, format].map(dtype_to_storage_type);
    let client = cache.client.clone();
    let cube = CubeDim::new(&client, units);
    hold::launch(
        &client,
        calculate_cube_count_elemwise(&client, units, cube),
        cube,
        cache.into_tensor_arg(),
        starts.into_tensor_arg(),
        slots.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        time,
        types,
    );
    out
}

/// Returns the output `[rows, keep, heads * dim]` and the cache.
pub(crate) fn cached_attention(
    cache: [CubeTensor; 2],
    inputs: Inputs,
    sizes: CachedSizes,
) -> (CubeTensor, [CubeTensor; 2]) {
    let CachedSizes { heads, group, keep, keys: most_keys } = sizes;
    let [mut keys, mut values] = writable(cache);
    let qkv = into_contiguous(inputs.qkv);
    let [cos, sin] = inputs.table.map(into_contiguous);
    let [positions, starts, slots] =
        [inputs.positions, inputs.starts, inputs.slots].map(into_contiguous);
    let [rows, time, _] = qkv.meta.shape().dims();
    let [_, _, capacity, dim] = keys.meta.shape().dims();
    let half = cos.meta.shape()[1];
    let scale = (dim as f32).powf(-0.5);
    let client = qkv.client.clone();
    let types = [qkv.dtype, keys.dtype, slots.dtype].map(dtype_to_storage_type);
    let units_of = |units: usize| {
        let cube = CubeDim::new(&client, units);
        (calculate_cube_count_elemwise(&client, units, cube), cube)
    };
    let out = empty(&qkv, Shape::new([rows, keep, heads * dim]), qkv.dtype);
    let parts = most_keys.div_ceil(KEYS_PER_PART);

    if parts == 1 && time <= FEW {
        let (count, cube) = units_of(rows * heads);
        attend_few::launch(
            &client,
            count,
            cube,
            qkv.into_tensor_arg(),
            cos.into_tensor_arg(),
            sin.into_tensor_arg(),
            positions.into_tensor_arg(),
            starts.into_tensor_arg(),
            slots.into_tensor_arg(),
            keys.clone().into_tensor_arg(),
            values.clone().into_tensor_arg(),
            out.clone().into_tensor_arg(),
            keep,
            group,
            scale,
            half,
            dim,
            types,
        );
        return (out, [keys, values]);
    }

    let all_queries = rows * heads * keep;
    // the weighted sum of values, the largest score and the sum of weights of each part
    let partial = empty(&qkv, Shape::new([all_queries, parts, dim + 2]), qkv.dtype);
    if time == 1 {
        let (count, cube) = units_of(all_queries * parts);
        attend_one::launch(
            &client,
            count,
            cube,
            qkv.into_tensor_arg(),
            cos.into_tensor_arg(),
            sin.into_tensor_arg(),
            positions.into_tensor_arg(),
            starts.into_tensor_arg(),
            slots.into_tensor_arg(),
            keys.clone().into_tensor_arg(),
            values.clone().into_tensor_arg(),
            partial.clone().into_tensor_arg(),
            parts,
            scale,
            half,
            dim,
            types,
        );
    } else {
        let (starts_too, slots_too, format) = (starts.clone(), slots.clone(), qkv.dtype);
        let inputs = Inputs { qkv, table: [cos, sin], positions, starts, slots };
        let (queries, cache) = write_cache([keys, values], inputs, keep, format);
        [keys, values] = cache;
        let (count, cube) = units_of(all_queries * parts);
        attend_part::launch(
            &client,
            count,
            cube,
            queries.into_tensor_arg(),
            keys.clone().into_tensor_arg(),
            values.clone().into_tensor_arg(),
            starts_too.into_tensor_arg(),
            slots_too.into_tensor_arg(),
            partial.clone().into_tensor_arg(),
            time,
            group,
            capacity,
            parts,
            dim,
            types,
        );
    }
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
        types[0],
    );
    (out, [keys, values])
}
