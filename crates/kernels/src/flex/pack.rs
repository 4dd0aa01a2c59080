//! Matrices in panels of 16 columns: `[n / 16][k][16]`.

use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape, Tensor, bf16};
use rayon::prelude::*;

use super::integers::{LARGEST, wrapped};
use super::parts::DisjointSlices;
use super::simd::vector::Stored;
use crate::packed::{PANEL, SCALE_ROWS};

/// See [`crate::pack`].
pub(crate) fn pack(weight: &Tensor<2>) -> Option<Tensor<2>> {
    let [k, n] = weight.dims();
    let weight = rows(weight)?;
    let dtype = weight.dtype();
    let packed = match dtype {
        DType::F32 => Bytes::from_elems(in_panels(weight.storage::<f32>(), k, n)),
        DType::BF16 => Bytes::from_elems(in_panels(weight.storage::<bf16>(), k, n)),
        _ => return None,
    };
    Some(Tensor::from_primitive::<Flex>(panels(packed, dtype, k, n)))
}

/// See [`crate::quantize`].
pub(crate) fn quantize(weight: &Tensor<2>) -> Option<Tensor<2>> {
    let [k, n] = weight.dims();
    let weight = rows(weight)?;
    let packed = match weight.dtype() {
        DType::F32 => in_integer_panels(weight.storage::<f32>(), k, n),
        DType::BF16 => in_integer_panels(weight.storage::<bf16>(), k, n),
        _ => return None,
    };
    Some(wrapped(panels(Bytes::from_elems(packed), DType::I8, k + SCALE_ROWS, n)))
}

/// The matrix in row-major order, if it can be in panels.
fn rows(weight: &Tensor<2>) -> Option<FlexTensor> {
    let [_, n] = weight.dims();
    if weight.is_autodiff() || n % PANEL != 0 {
        return None;
    }
    let weight = weight.clone().try_into_primitive::<Flex>().ok()?.to_contiguous();
    (weight.layout().contiguous_offsets()?.0 == 0).then_some(weight)
}

/// Panels of `height` rows as a tensor.
fn panels(packed: Bytes, dtype: DType, height: usize, n: usize) -> FlexTensor {
    let layout = Layout::contiguous(Shape::new([height * n / PANEL, PANEL]));
    FlexTensor::new(packed, layout, dtype)
}

/// The matrix `[k, n]` in panels.
pub(super) fn in_panels<T: Stored>(rows: &[T], k: usize, n: usize) -> Vec<T> {
    filled(k * n, |all| {
        (0..n / PANEL).into_par_iter().for_each(|panel| {
            for row in 0..k {
                let from = row * n + panel * PANEL;
                // SAFETY: only this task writes this panel
                unsafe { all.write((panel * k + row) * PANEL, &rows[from..from + PANEL]) };
            }
        });
    })
}

/// The matrix `[k, n]` in panels of integers, each with its scales.
pub(super) fn in_integer_panels<T: Stored>(rows: &[T], k: usize, n: usize) -> Vec<i8> {
    let height = k + SCALE_ROWS;
    filled(height * n, |all| {
        (0..n / PANEL).into_par_iter().for_each(|panel| {
            let columns = |row: usize| &rows[row * n + panel * PANEL..][..PANEL];
            let mut largest = [0.0_f32; PANEL];
            for row in 0..k {
                for (largest, x) in largest.iter_mut().zip(columns(row)) {
                    // unlike `f32::max`, keeps a NaN, which becomes the scale
                    let x = x.to_f32().abs();
                    *largest = if largest.is_nan() || x <= *largest { *largest } else { x };
                }
            }
            // a column with a weight that is not finite has no finite scale, and its sums are NaN
            let scales = largest.map(|x| if x.is_finite() { x / LARGEST } else { f32::NAN });
            let first = panel * height;
            for row in 0..k {
                let mut integers = [0; PANEL];
                for ((integer, x), scale) in integers.iter_mut().zip(columns(row)).zip(scales) {
                    // a column of zeros stays zero; `as` clamps
                    let steps = if scale > 0.0 { x.to_f32() / scale } else { 0.0 };
                    *integer = steps.round_ties_even() as i8;
                }
                // SAFETY: only this task writes this panel, here and below
                unsafe { all.write((first + row) * PANEL, &integers) };
            }
            let bytes: Vec<i8> = scales
                .iter()
                .flat_map(|scale| scale.to_ne_bytes().map(|byte| byte as i8))
                .collect();
            unsafe { all.write((first + k) * PANEL, &bytes) };
        });
    })
}

/// A vector of `len` elements, all of which `fill` writes.
fn filled<T: Copy + Send>(len: usize, fill: impl FnOnce(DisjointSlices<'_, T>)) -> Vec<T> {
    let mut all = Vec::with_capacity(len);
    fill(DisjointSlices::spare(&mut all));
    // SAFETY: `fill` has written all elements
    unsafe { all.set_len(len) };
    all
}
