//! Flex tensors as slices, and disjoint parts of a buffer as slices for several threads.

use std::marker::PhantomData;

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};

/// The tensor's numbers in row-major order, when they are f32.
pub fn contiguous(tensor: &FlexTensor) -> Option<FlexTensor> {
    (tensor.dtype() == DType::F32).then(|| tensor.to_contiguous())
}

/// The numbers of a contiguous f32 tensor.
pub fn numbers(tensor: &FlexTensor) -> &[f32] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<f32>()[start..start + tensor.layout().num_elements()]
}

/// A tensor that owns `values`.
pub fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// A buffer that several tasks write, each its own places.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    start: *mut f32,
    len: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: `slice` is unsafe and asks that no two tasks take the same places.
unsafe impl Send for Shared<'_> {}
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// All of `buffer`.
    pub fn new(buffer: &'a mut [f32]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// The room of `buffer` behind its numbers, to [`write`](Self::write) only.
    pub fn spare(buffer: &'a mut Vec<f32>) -> Self {
        let spare = buffer.spare_capacity_mut();
        Self { start: spare.as_mut_ptr().cast(), len: spare.len(), buffer: PhantomData }
    }

    /// Writes `values` from `first` on.
    ///
    /// # Safety
    /// No other task may use these places.
    pub unsafe fn write(self, first: usize, values: &[f32]) {
        assert!(first + values.len() <= self.len);
        // SAFETY: inside the buffer; the caller's
        unsafe {
            self.start.add(first).copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
    }

    /// `len` numbers from `start` on.
    ///
    /// # Safety
    /// No other live slice covers any of them.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the parts apart")]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start + len <= self.len, "{start} + {len} of {}", self.len);
        // SAFETY: inside the buffer by the check above; alone by the caller's promise
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
