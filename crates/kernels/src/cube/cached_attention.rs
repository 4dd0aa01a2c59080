//! Attention over a KV cache: new keys and values are written to their slots in place, then each query
//! attends to its slot.
//!
//! - A few positions over a short cache, as in a block of the token decoder, are one launch: a unit
//!   does all the work of a row and head.
//! - One position over a longer cache is a launch in which each unit attends to a part of the keys, and
//!   one that combines the parts. The unit of the last part also writes the new key and value.
//! - More positions, as in a prefill, are written by a launch before these two.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::cached_kernels::{KEYS_PER_PART, attend_few, attend_one, attend_part, combine, write};
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

/// Returns the output `[rows, keep, heads * dim]` and the cache.
pub(crate) fn cached_attention(
    cache: [CubeTensor; 2],
    inputs: Inputs,
    sizes: CachedSizes,
) -> (CubeTensor, [CubeTensor; 2]) {
    let CachedSizes { heads, group, keep, keys: most_keys } = sizes;
    // a cache that something else refers to is copied; the engine holds the only reference
    let [keys, values] = cache.map(|cache| {
        let cache = into_contiguous(cache);
        if cache.handle.can_mut() { cache } else { cache.copy() }
    });
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
        let queries = empty(&qkv, Shape::new([rows, heads, keep, dim]), qkv.dtype);
        let (count, cube) = units_of(rows * time * heads * dim);
        write::launch(
            &client,
            count,
            cube,
            qkv.into_tensor_arg(),
            cos.into_tensor_arg(),
            sin.into_tensor_arg(),
            positions.into_tensor_arg(),
            starts.clone().into_tensor_arg(),
            slots.clone().into_tensor_arg(),
            queries.clone().into_tensor_arg(),
            keys.clone().into_tensor_arg(),
            values.clone().into_tensor_arg(),
            time,
            keep,
            half,
            types,
        );
        let (count, cube) = units_of(all_queries * parts);
        attend_part::launch(
            &client,
            count,
            cube,
            queries.into_tensor_arg(),
            keys.clone().into_tensor_arg(),
            values.clone().into_tensor_arg(),
            starts.into_tensor_arg(),
            slots.into_tensor_arg(),
            partial.clone().into_tensor_arg(),
            time,
            group,
            capacity,
            parts,
            scale,
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
