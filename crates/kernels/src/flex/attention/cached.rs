//! Attention over a KV cache, to which the new positions are written in place.

use burn::backend::Flex;
use burn::tensor::{DType, Shape, Tensor};

use crate::causal_mask::CausalMask;
use crate::flex::parts::{DisjointSlices, contiguous, tensor, values};
use crate::indices::Indices;
use crate::rotary::RotaryAngles;

use super::head::Heads;
use super::per_head::{Scratch, for_each_head, forward};
use super::view::View;

/// See [`crate::cached_attention`].
pub(crate) fn cached_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &RotaryAngles,
    mask: &CausalMask,
    slots: &Indices,
    keep: usize,
    cache: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    let [batch, time, width] = qkv.dims();
    let dim = width / heads / 3;
    let [slots_of_cache, _, capacity, _] = cache[0].dims();
    let distinct = slots.iter().enumerate().all(|(i, slot)| !slots[..i].contains(slot));
    let exist = slots.iter().all(|&slot| slot < slots_of_cache);
    let fit = (0..batch).all(|row| mask.start(row) + time <= capacity);
    assert!(slots.len() == batch && distinct && exist && fit, "rows do not fit the KV cache");
    let qkv = contiguous(&qkv.clone().try_into_primitive::<Flex>().ok()?)?;
    if cache.iter().any(|cache| cache.is_autodiff() || cache.dtype() != DType::F32) {
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
        let all_keys = DisjointSlices::new(stored_keys.storage_mut::<f32>());
        let all_values = DisjointSlices::new(stored_values.storage_mut::<f32>());
        let shape = Heads { batch, time, heads, dim };
        let longest = (0..batch).map(|row| mask.start(row)).max().unwrap_or(0) + time;
        let qkv = values(&qkv);
        for_each_head(shape, longest, |scratch, row, head| {
            let Scratch { q, out, scores, d_scores: lse, .. } = scratch;
            q.resize(time * dim, 0.0);
            out.resize(keep * dim, 0.0);
            lse.resize(keep, 0.0);
            let start = mask.start(row);
            let first = (slots[row] * heads + head) * capacity * dim;
            // SAFETY: only the task of this (row, head) uses these elements: no two rows share a slot
            let (k, v) = unsafe {
                let len = (start + time) * dim;
                (all_keys.slice(first, len), all_values.slice(first, len))
            };
            let new = start * dim..;
            shape.load(qkv, (row, head), angles, [q, &mut k[new.clone()], &mut v[new]]);
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
