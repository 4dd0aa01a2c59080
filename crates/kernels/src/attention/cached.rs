//! Attention of new positions over a cache, which they are written to in place.

use burn::backend::Flex;
use burn::tensor::{DType, Shape, Tensor};

use crate::parts::{Shared, contiguous, numbers, tensor};
use crate::{Angles, Order};

use super::head::Heads;
use super::view::View;
use super::{Scratch, for_each_head, forward};

/// See [`crate::cached_attention`].
pub fn cached_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &Angles,
    order: &Order,
    slots: &[usize],
    keep: usize,
    cache: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    let [batch, time, width] = qkv.dims();
    let dim = width / heads / 3;
    let [slots_of_cache, _, capacity, _] = cache[0].dims();
    let alone = slots.iter().enumerate().all(|(i, slot)| !slots[..i].contains(slot));
    let fits = slots.iter().all(|&slot| slot < slots_of_cache);
    let reaches = (0..batch).all(|row| order.start(row) + time <= capacity);
    assert!(slots.len() == batch && alone && fits && reaches, "rows of slots that are not there");
    let qkv = contiguous(&qkv.clone().try_into_primitive::<Flex>().ok()?)?;
    if cache.iter().any(|cache| cache.is_autodiff() || cache.dtype() != DType::F32) {
        return None;
    }
    // taken out of the tensors, so that nobody else holds the numbers while they are written
    let [keys, values] = cache;
    let empty = || Tensor::<4>::zeros([1, 1, 1, 1], &keys.device());
    let (empty_keys, empty_values) = (empty(), empty());
    let mut stored_keys =
        std::mem::replace(keys, empty_keys).try_into_primitive::<Flex>().ok()?.to_contiguous();
    let mut stored_values =
        std::mem::replace(values, empty_values).try_into_primitive::<Flex>().ok()?.to_contiguous();
    let mut out = vec![0.0; batch * keep * heads * dim];
    let asking = order.after(time - keep);
    {
        let all_out = Shared::new(&mut out);
        let all_keys = Shared::new(stored_keys.storage_mut::<f32>());
        let all_values = Shared::new(stored_values.storage_mut::<f32>());
        let shape = Heads { batch, time, heads, dim };
        let longest = (0..batch).map(|row| order.start(row)).max().unwrap_or(0) + time;
        let qkv = numbers(&qkv);
        for_each_head(shape, longest, |scratch, row, head| {
            let Scratch { q, out, scores, d_scores: lse, .. } = scratch;
            q.resize(time * dim, 0.0);
            out.resize(keep * dim, 0.0);
            lse.resize(keep, 0.0);
            let start = order.start(row);
            let first = (slots[row] * heads + head) * capacity * dim;
            // SAFETY: each (row, head) is one task, and no two rows share a slot
            let (k, v) = unsafe {
                let len = (start + time) * dim;
                (all_keys.slice(first, len), all_values.slice(first, len))
            };
            let new = start * dim..;
            shape.load(qkv, (row, head), angles, [q, &mut k[new.clone()], &mut v[new]]);
            let q = &q[(time - keep) * dim..];
            let view = View { q, k, v, order: &asking, row, dim };
            forward(view, out, lse, scores);
            for (i, from) in out.chunks_exact(dim).enumerate() {
                // SAFETY: as above
                let to = unsafe { all_out.slice(((row * keep + i) * heads + head) * dim, dim) };
                to.copy_from_slice(from);
            }
        });
    }
    *keys = Tensor::from_primitive::<Flex>(stored_keys);
    *values = Tensor::from_primitive::<Flex>(stored_values);
    let out = tensor(out, Shape::new([batch, keep, heads * dim]));
    Some(Tensor::from_primitive::<Flex>(out))
}
