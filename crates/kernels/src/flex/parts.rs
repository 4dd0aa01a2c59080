//! Flex tensors as slices, and disjoint parts of a buffer as slices for several threads.

use std::marker::PhantomData;

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};
use rayon::prelude::*;

/// The tensor in row-major order; `None` unless its elements are f32.
pub(crate) fn contiguous(tensor: &FlexTensor) -> Option<FlexTensor> {
    (tensor.dtype() == DType::F32).then(|| tensor.to_contiguous())
}

/// The elements of a contiguous f32 tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<f32>()[start..start + tensor.layout().num_elements()]
}

/// A tensor that owns `values`.
pub(crate) fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// A vector of `len` elements. Tasks write its parts of `size` elements: `write` gets the index of a part and its
/// elements, which are zero. The threads fill the memory, because one thread alone would take longer than many
/// computations on it.
pub(crate) fn in_parts(
    len: usize,
    size: usize,
    write: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut all: Vec<f32> = Vec::with_capacity(len);
    let to = DisjointSlices::spare(&mut all);
    (0..len.div_ceil(size)).into_par_iter().for_each(|i| {
        let first = i * size;
        let count = size.min(len - first);
        // SAFETY: only this task uses these elements, which exist after they are zero
        let part = unsafe {
            to.start().add(first).write_bytes(0, count);
            to.slice(first, count)
        };
        write(i, part);
    });
    // SAFETY: the tasks have written all elements
    unsafe { all.set_len(len) };
    all
}

/// A buffer in which each of several tasks writes its own part.
#[derive(Clone, Copy)]
pub(crate) struct DisjointSlices<'a, T = f32> {
    start: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: the methods that touch the buffer are unsafe and require that no two tasks use the same
// elements.
unsafe impl<T: Send> Send for DisjointSlices<'_, T> {}
unsafe impl<T: Send> Sync for DisjointSlices<'_, T> {}

impl<'a, T: Copy> DisjointSlices<'a, T> {
    /// All elements of `buffer`.
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// The spare capacity of `buffer`. It is not initialized, so elements may only be used with
    /// [`write`](Self::write) until they are written.
    pub(crate) fn spare(buffer: &'a mut Vec<T>) -> Self {
        let spare = buffer.spare_capacity_mut();
        Self { start: spare.as_mut_ptr().cast(), len: spare.len(), buffer: PhantomData }
    }

    /// The address of the first element.
    pub(crate) fn start(self) -> *mut T {
        self.start
    }

    /// The number of elements.
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Writes `values` to the elements from `first` on.
    ///
    /// # Safety
    /// No other task may use these elements.
    pub(crate) unsafe fn write(self, first: usize, values: &[T]) {
        assert!(first + values.len() <= self.len);
        // SAFETY: inside the buffer by the check above; exclusive by the caller's promise
        unsafe {
            self.start.add(first).copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
    }

    /// Returns the `len` elements from `start` on.
    ///
    /// # Safety
    /// No other live slice may contain any of them.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the slices disjoint")]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.len, "{start} + {len} of {}", self.len);
        // SAFETY: inside the buffer by the check above; exclusive by the caller's promise
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
