//! Embedding and its gradient, which is parallel over tokens and columns and uses no atomics.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// See [`super::operations::TrainingOperations::embed`].
pub(crate) fn embed(table: CubeTensor, ids: CubeTensor) -> CubeTensor {
    CubeBackend::float_select(table, 0, ids)
}

/// See [`super::operations::TrainingOperations::embed_gradient`].
pub(crate) fn embed_gradient(d_rows: CubeTensor, ids: CubeTensor, entries: usize) -> CubeTensor {
    let (d_rows, ids) = (into_contiguous(d_rows), into_contiguous(ids));
    let [count, width] = d_rows.meta.shape().dims();
    let (client, device, dtype) = (d_rows.client.clone(), d_rows.device.clone(), d_rows.dtype);
    let out = CubeBackend::float_zeros(Shape::new([entries, width]), &device, dtype.into());
    if count == 0 || width == 0 {
        return out;
    }
    let next = CubeTensor::new_contiguous(
        client.clone(),
        device,
        Shape::new([count]),
        client.empty(count * size_of::<u32>()),
        DType::U32,
    );
    let id_type = dtype_to_storage_type(ids.dtype);
    let dim = CubeDim::new(&client, count);
    let cubes = calculate_cube_count_elemwise(&client, count, dim);
    next_occurrence::launch(
        &client,
        cubes,
        dim,
        ids.clone().into_tensor_arg(),
        next.clone().into_tensor_arg(),
        id_type,
    );
    let dim = CubeDim::new(&client, count * width);
    let cubes = calculate_cube_count_elemwise(&client, count * width, dim);
    sum_of_occurrences::launch(
        &client,
        cubes,
        dim,
        d_rows.into_tensor_arg(),
        ids.into_tensor_arg(),
        next.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        width,
        [dtype_to_storage_type(dtype), id_type],
    );
    out
}

/// Marks an id that occurs earlier.
const NOT_FIRST: u32 = 1 << 31;

/// Writes to `next[i]` the index of the next occurrence of `ids[i]`, or the number of ids if there
/// is none, and marks it with [`NOT_FIRST`] if the id occurs before `i`.
#[cube(launch)]
fn next_occurrence<I: Int>(ids: &Tensor<I>, next: &mut Tensor<u32>, #[define(I)] _id: ElemType) {
    let count = next.len();
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let id = ids[ABSOLUTE_POS];
    let mut found = count as u32;
    let mut j = ABSOLUTE_POS + 1;
    while j < count {
        if ids[j] == id {
            found = j as u32;
            j = count;
        }
        j += 1;
    }
    let mut j = 0;
    while j < ABSOLUTE_POS {
        if ids[j] == id {
            found += NOT_FIRST;
            j = ABSOLUTE_POS;
        }
        j += 1;
    }
    next[ABSOLUTE_POS] = found;
}

/// Adds the rows of each id, from its first occurrence on. One unit adds one column of one id; the
/// units of later occurrences write nothing.
#[cube(launch)]
fn sum_of_occurrences<F: Float, I: Int>(
    d_rows: &Tensor<F>,
    ids: &Tensor<I>,
    next: &Tensor<u32>,
    out: &mut Tensor<F>,
    width: usize,
    #[define(F, I)] _types: [ElemType; 2],
) {
    let count = next.len();
    let row = ABSOLUTE_POS / width;
    if row >= count {
        terminate!();
    }
    let column = ABSOLUTE_POS % width;
    let mut following = next[row];
    if following >= NOT_FIRST {
        terminate!();
    }
    let mut sum = d_rows[row * width + column];
    while (following as usize) < count {
        let j = following as usize;
        sum += d_rows[j * width + column];
        following = next[j] & (NOT_FIRST - 1);
    }
    out[usize::cast_from(ids[row]) * width + column] = sum;
}
