//! Attention over a KV cache, to which the new positions are written in place.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Bool, DType, Device, Shape, Tensor, bf16};
use half::slice::HalfFloatSliceExt;

use crate::causal_mask::CausalMask;
use crate::flex::parts::{DisjointSlices, contiguous, tensor, values};
use crate::indices::Indices;
use crate::rotary::RotaryAngles;

use super::head::Heads;
use super::per_head::{MAX_LOOP_QUERIES, Scratch, for_each_head, forward};
use super::view::View;

/// See [`crate::batch_invariant_queries`].
pub(crate) fn batch_invariant_queries(device: &Device) -> Option<usize> {
    crate::flex::serves(device).then_some(MAX_LOOP_QUERIES)
}

/// See [`crate::cached_attention`].
pub(crate) fn cached_attention(
    qkv: &Tensor<3>,
    angles: &RotaryAngles,
    mask: &CausalMask,
    _: &dyn Fn() -> Option<Tensor<4, Bool>>,
    slots: &Indices,
    keep: usize,
    cache: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    let [batch, time, width] = qkv.dims();
    // first, because another backend may have bounded slots
    let qkv = contiguous(&qkv.clone().try_into_primitive::<Flex>().ok()?)?;
    let [slots_of_cache, heads, capacity, _] = cache[0].dims();
    let dim = width / heads / 3;
    let distinct = slots.iter().enumerate().all(|(i, slot)| !slots[..i].contains(slot));
    let exist = slots.iter().all(|&slot| slot < slots_of_cache);
    let fit = (0..batch).all(|row| mask.start(row) + time <= capacity);
    assert!(slots.len() == batch && distinct && exist && fit, "rows do not fit the KV cache");
    let format = cache[0].dtype();
    let serves = |cache: &Tensor<4>| !cache.is_autodiff() && cache.dtype() == format;
    if !matches!(format, DType::F32 | DType::BF16) || !cache.iter().all(|cache| serves(cache)) {
        return None;
    }
    let stored =
        |cache: &Tensor<4>| Some(cache.clone().try_into_primitive::<Flex>().ok()?.to_contiguous());
    let [keys, cached_values] = cache;
    let (mut stored_keys, mut stored_values) = (stored(keys)?, stored(cached_values)?);
    // the cache gives up its references to the tensors, so that they can be written without a copy
    let placeholder = Tensor::<4>::zeros([1, 1, 1, 1], &keys.device());
    *keys = placeholder.clone();
    *cached_values = placeholder;
    let mut out = vec![0.0; batch * keep * heads * dim];
    let query_mask = mask.after(time - keep);
    {
        let all_out = DisjointSlices::new(&mut out);
        let [all_keys, all_values] = [&mut stored_keys, &mut stored_values].map(CacheSlices::new);
        let shape = Heads { batch, time, heads, dim };
        let longest = (0..batch).map(|row| mask.start(row)).max().unwrap_or(0) + time;
        let qkv = values(&qkv);
        for_each_head(shape, longest, |scratch, row, head| {
            let Scratch { q, k, v, out, scores, d_scores: lse, .. } = scratch;
            q.resize(time * dim, 0.0);
            out.resize(keep * dim, 0.0);
            lse.resize(keep, 0.0);
            let start = mask.start(row);
            let first = (slots[row] * heads + head) * capacity * dim;
            let (len, new) = ((start + time) * dim, start * dim);
            // SAFETY: only the task of this (row, head) uses these elements: no two rows share a slot
            let (k, v) =
                unsafe { (all_keys.open(first, len, new, k), all_values.open(first, len, new, v)) };
            shape.load(qkv, (row, head), angles, [q, &mut k[new..], &mut v[new..]]);
            // SAFETY: as above
            unsafe {
                all_keys.close(first + new, &mut k[new..]);
                all_values.close(first + new, &mut v[new..]);
            }
            let q = &q[(time - keep) * dim..];
            let view = View { q, k, v, mask: &query_mask, row, dim };
            forward(view, out, lse, scores);
            for (i, from) in out.chunks_exact(dim).enumerate() {
                // SAFETY: only the task of this (row, head) uses these elements
                let to = unsafe { all_out.slice(((row * keep + i) * heads + head) * dim, dim) };
                to.copy_from_slice(from);
            }
        });
    }
    *keys = Tensor::from_primitive::<Flex>(stored_keys);
    *cached_values = Tensor::from_primitive::<Flex>(stored_values);
    let out = tensor(out, Shape::new([batch, keep, heads * dim]));
    Some(Tensor::from_primitive::<Flex>(out))
}

/// The elements of a cache in the format in which they are stored.
#[derive(Clone, Copy)]
enum CacheSlices<'a> {
    F32(DisjointSlices<'a>),
    Bf16(DisjointSlices<'a, bf16>),
}

impl<'a> CacheSlices<'a> {
    fn new(stored: &'a mut FlexTensor) -> Self {
        match stored.dtype() {
            DType::BF16 => Self::Bf16(DisjointSlices::new(stored.storage_mut())),
            _ => Self::F32(DisjointSlices::new(stored.storage_mut())),
        }
    }

    /// The `len` elements from `first` on as f32: in place, or for bf16 in `scratch`, where the
    /// elements from `new` on are not defined.
    ///
    /// # Safety
    /// No other live slice may contain any of them.
    unsafe fn open<'b>(
        &'b self,
        first: usize,
        len: usize,
        new: usize,
        scratch: &'b mut Vec<f32>,
    ) -> &'b mut [f32] {
        match self {
            // SAFETY: by the caller's promise
            Self::F32(all) => unsafe { all.slice(first, len) },
            Self::Bf16(all) => {
                scratch.resize(len, 0.0);
                // SAFETY: by the caller's promise
                let stored = unsafe { all.slice(first, new) };
                stored.convert_to_f32_slice(&mut scratch[..new]);
                scratch
            }
        }
    }

    /// Stores `values`, which start at `first`, and rounds them to the stored format.
    ///
    /// # Safety
    /// No live slice but those of [`open`](Self::open) may contain any of them.
    unsafe fn close(&self, first: usize, values: &mut [f32]) {
        let Self::Bf16(all) = self else { return };
        // SAFETY: by the caller's promise
        let stored = unsafe { all.slice(first, values.len()) };
        stored.convert_from_f32_slice(values);
        stored.convert_to_f32_slice(values);
    }
}
