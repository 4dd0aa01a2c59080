//! Tensors of integers with scales, as float tensors of burn, and caches of keys and values in integers.

use burn::backend::flex::{FlexQTensor, FlexTensor, Layout};
use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor, Flex};
use burn::tensor::quantization::{QuantScheme, QuantStore};
use burn::tensor::{Bytes, DType, Device, Int, Shape, Tensor};

use super::parts::{contiguous, values};

/// The largest absolute value of an integer. -128 is not used, so that the integers are symmetric.
pub(super) const LARGEST: f32 = 127.0;
/// Bytes after the integers of a key or a value, which hold an f32: what one step of the integers is worth.
pub(super) use crate::INTEGER_CACHE_SCALE as SCALE_BYTES;

/// Integers as a float tensor.
pub(super) fn wrapped<const D: usize>(integers: FlexTensor) -> Tensor<D> {
    // burn's quantized tensors are the only ones of its floats that hold integers; the scale of the whole
    // tensor that they have is not used, and neither are burn's operations on them
    let scheme = QuantScheme::default().with_store(QuantStore::Native);
    let tensor = FlexQTensor::new(integers, scheme, vec![1.0], None);
    Tensor::from_dispatch(DispatchTensor::from_backend(BackendTensor::<Flex>::Quantized(tensor)))
}

/// The integers of [`wrapped`].
pub(super) fn unwrapped<const D: usize>(tensor: Tensor<D>) -> Option<FlexTensor> {
    let tensor: Result<BackendTensor<Flex>, _> =
        <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(tensor.into_dispatch());
    match tensor.ok()? {
        BackendTensor::Quantized(tensor) => Some(tensor.tensor().clone()),
        _ => None,
    }
}

/// See [`crate::integer_cache`].
pub(crate) fn integer_cache(one: &Tensor<4>, slots: usize) -> Option<Tensor<4>> {
    let [_, heads, capacity, dim] = one.dims();
    let one = contiguous(&one.clone().try_into_primitive::<Flex>().ok()?)?;
    let mut floats = values(&one).to_vec();
    let row = dim + SCALE_BYTES;
    let mut integers = vec![0; heads * capacity * row];
    narrow(&mut floats, dim, &mut integers);
    let all = Bytes::from_elems(integers.repeat(slots));
    let layout = Layout::contiguous(Shape::new([slots, heads, capacity, row]));
    Some(wrapped(FlexTensor::new(all, layout, DType::I8)))
}

/// See [`crate::empty_integer_cache`].
pub(crate) fn empty_integer_cache(shape: [usize; 4], device: &Device) -> Option<Tensor<4>> {
    let [slots, heads, capacity, dim] = shape;
    super::serves(device).then(|| {
        let shape = Shape::new([slots, heads, capacity, dim + SCALE_BYTES]);
        let zeros = Bytes::from_elems(vec![0_i8; shape.num_elements()]);
        wrapped(FlexTensor::new(zeros, Layout::contiguous(shape), DType::I8))
    })
}

/// See [`crate::integer_rows`].
pub(crate) fn integer_rows(cache: Tensor<4>) -> Option<Tensor<4, Int>> {
    unwrapped(cache).map(Tensor::from_primitive::<Flex>)
}

/// See [`crate::integer_cache_rows`].
pub(crate) fn integer_cache_rows(rows: Tensor<4, Int>) -> Option<Tensor<4>> {
    rows.try_into_primitive::<Flex>().ok().map(wrapped)
}

vectorized! {
    /// Widens rows of `dim` integers, each with its scale, to `to`.
    pub(super) fn widen(rows: &[i8], dim: usize, to: &mut [f32]) {
        for (row, to) in rows.chunks_exact(dim + SCALE_BYTES).zip(to.chunks_exact_mut(dim)) {
            let (integers, scale) = row.split_at(dim);
            let scale = f32::from_ne_bytes([0, 1, 2, 3].map(|i| scale[i] as u8));
            for (to, &integer) in to.iter_mut().zip(integers) {
                *to = f32::from(integer) * scale;
            }
        }
    }
}

vectorized! {
    /// Rounds rows of `dim` floats to integers, each with its scale, and replaces the floats by the values of
    /// these. A row with a float that is not finite becomes NaN.
    pub(super) fn narrow(floats: &mut [f32], dim: usize, rows: &mut [i8]) {
        for (floats, row) in floats.chunks_exact_mut(dim).zip(rows.chunks_exact_mut(dim + SCALE_BYTES)) {
            let (integers, bytes) = row.split_at_mut(dim);
            let mut largest = 0.0_f32;
            let mut finite = true;
            for x in floats.iter() {
                largest = largest.max(x.abs());
                finite &= x.is_finite();
            }
            let scale = if finite { largest / LARGEST } else { f32::NAN };
            for (x, integer) in floats.iter_mut().zip(integers) {
                // a row of zeros stays zero
                let steps = if scale > 0.0 { *x / scale } else { 0.0 };
                *integer = steps.round_ties_even() as i8;
                *x = f32::from(*integer) * scale;
            }
            for (byte, of_scale) in bytes.iter_mut().zip(scale.to_ne_bytes()) {
                *byte = of_scale as i8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_set::forced::for_each_set;

    #[test]
    fn rows_are_rounded_by_their_own_scale_and_come_back() {
        let floats = [
            [1.27, -0.63, 0.0, 0.01, -1.27],
            [0.0; 5],
            [f32::NAN, 1.0, 2.0, 3.0, 4.0],
            [1e-37, -2e-37, 0.0, 0.0, 1e-37],
        ];
        for_each_set(|set| {
            let mut rounded = floats.concat();
            let mut rows = vec![0; 4 * (5 + SCALE_BYTES)];
            narrow(&mut rounded, 5, &mut rows);
            assert_eq!(rows[..5], [127, -63, 0, 1, -127], "{set:?}");
            let mut back = vec![7.0; 20];
            widen(&rows, 5, &mut back);
            for (i, (back, rounded)) in back.iter().zip(&rounded).enumerate() {
                assert_eq!(back.to_bits(), rounded.to_bits(), "{set:?} {i}");
                assert_eq!(back.is_nan(), i / 5 == 2);
                let step =
                    floats[i / 5].iter().fold(0.0, |most: f32, x| most.max(x.abs())) / LARGEST;
                assert!(i / 5 == 2 || (back - floats[i / 5][i % 5]).abs() <= 0.501 * step);
            }
        });
    }
}
