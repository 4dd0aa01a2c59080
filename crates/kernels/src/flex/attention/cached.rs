//! Attention over a KV cache, to which the new positions are written in place.

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Bool, DType, Shape, Tensor, bf16};
use half::slice::HalfFloatSliceExt;

use crate::cached_rows::CachedRows;
use crate::causal_mask::CausalMask;
use crate::flex::integers::{SCALE_BYTES, narrow, unwrapped, widen, wrapped};
use crate::flex::parts::{DisjointSlices, contiguous, tensor, values};
use crate::rotary::RotaryAngles;

use super::head::Heads;
use super::per_head::{Scratch, for_each_head};
use super::tiles;
use super::view::View;

/// See [`crate::cached_attention`].
pub(crate) fn cached_attention(
    qkv: &Tensor<3>,
    angles: &RotaryAngles,
    mask: &CausalMask,
    _: &dyn Fn() -> Option<Tensor<4, Bool>>,
    rows: CachedRows<'_>,
    cache: [&mut Tensor<4>; 2],
) -> Option<Tensor<3>> {
    let ([batch, time, width], slots) = (qkv.dims(), rows.slots);
    // first, because another backend may have bounded slots
    let qkv = contiguous(&qkv.clone().try_into_primitive::<Flex>().ok()?)?;
    let [slots_of_cache, heads, capacity, _] = cache[0].dims();
    let dim = width / heads / 3;
    let distinct = slots.iter().enumerate().all(|(i, slot)| !slots[..i].contains(slot));
    let exist = slots.iter().all(|&slot| slot < slots_of_cache);
    let spans = spans(rows, time);
    let fit = spans.iter().enumerate().all(|(row, at)| mask.start(row) + at.len() <= capacity);
    let all = spans.last().map_or(0, |last| last.end) == batch * time;
    assert!(all && distinct && exist && fit, "rows do not fit the KV cache");
    let format = cache[0].dtype();
    let serves = |cache: &Tensor<4>| !cache.is_autodiff() && cache.dtype() == format;
    if !matches!(format, DType::F32 | DType::BF16 | DType::QFloat(_))
        || !cache.iter().all(|cache| serves(cache))
    {
        return None;
    }
    let stored = |cache: &Tensor<4>| {
        let cache = cache.clone();
        Some(match format {
            DType::QFloat(_) => unwrapped(cache)?,
            _ => cache.try_into_primitive::<Flex>().ok()?.to_contiguous(),
        })
    };
    let [keys, cached_values] = cache;
    let (mut stored_keys, mut stored_values) = (stored(keys)?, stored(cached_values)?);
    // the cache gives up its references to the tensors, so that they can be written without a copy
    let placeholder = Tensor::<4>::zeros([1, 1, 1, 1], &keys.device());
    *keys = placeholder.clone();
    *cached_values = placeholder;
    // of each row, the queries and the first of them in the output
    let kept = |at: &Range<usize>| rows.keep.unwrap_or(at.len());
    let firsts: Vec<usize> =
        spans.iter().scan(0, |end, at| Some(std::mem::replace(end, *end + kept(at)))).collect();
    let queries: usize = spans.iter().map(kept).sum();
    let mut out = vec![0.0; queries * heads * dim];
    {
        let all_out = DisjointSlices::new(&mut out);
        let [all_keys, all_values] = [&mut stored_keys, &mut stored_values].map(CacheSlices::new);
        let shape = Heads { batch, time, heads, dim };
        let scores =
            spans.iter().enumerate().map(|(row, at)| at.len() * (mask.start(row) + at.len()));
        let qkv = values(&qkv);
        for_each_head(spans.len(), heads, scores.max().unwrap_or(0), |scratch, row, head| {
            let Scratch { q, k, v, out, scores, d_scores: lse, .. } = scratch;
            let (at, start) = (spans[row].clone(), mask.start(row));
            let (new, keep) = (at.len(), kept(&at));
            q.resize(new * dim, 0.0);
            out.resize(keep * dim, 0.0);
            lse.resize(keep, 0.0);
            let first = (slots[row] * heads + head) * capacity;
            let span = Span { first, known: start, new, dim };
            // SAFETY: only the task of this (row, head) uses these positions: no two rows share a slot
            let (k, v) = unsafe { (all_keys.open(span, k), all_values.open(span, v)) };
            let known = start * dim;
            let to = [&mut q[..], &mut k[known..], &mut v[known..]];
            let angles = |t: usize| match rows.lengths {
                None => angles.at(row, t),
                Some(_) => angles.at(0, at.start + t),
            };
            shape.load_from(qkv, (at.clone(), head), angles, to);
            // SAFETY: as above
            unsafe {
                all_keys.close(span, &mut k[known..]);
                all_values.close(span, &mut v[known..]);
            }
            let q = &q[(new - keep) * dim..];
            tiles::forward(View { q, k, v, mask, row, skip: new - keep, dim }, out, lse, scores);
            for (i, from) in out.chunks_exact(dim).enumerate() {
                let to = ((firsts[row] + i) * heads + head) * dim;
                // SAFETY: only the task of this (row, head) uses these elements
                unsafe { all_out.slice(to, dim) }.copy_from_slice(from);
            }
        });
    }
    *keys = as_cache(stored_keys);
    *cached_values = as_cache(stored_values);
    let shape = match (rows.lengths, rows.keep) {
        (Some(_), None) => [1, queries, heads * dim],
        _ => [spans.len(), queries / spans.len(), heads * dim],
    };
    let out = tensor(out, Shape::new(shape));
    Some(Tensor::from_primitive::<Flex>(out))
}

/// The positions of each row in the sequence of those of all rows, where rows without a length of their own
/// have `time` positions.
fn spans(rows: CachedRows<'_>, time: usize) -> Vec<Range<usize>> {
    let mut end = 0;
    let span = |row: usize| {
        let start = end;
        end += rows.lengths.map_or(time, |lengths| lengths[row]);
        start..end
    };
    (0..rows.slots.len()).map(span).collect()
}

fn as_cache(stored: FlexTensor) -> Tensor<4> {
    match stored.dtype() {
        DType::I8 => wrapped(stored),
        _ => Tensor::from_primitive::<Flex>(stored),
    }
}

/// The positions of a slot and head in a cache.
#[derive(Clone, Copy)]
struct Span {
    /// The first position, counted over all slots and heads.
    first: usize,
    /// Positions that are written already.
    known: usize,
    /// Positions after these that are new.
    new: usize,
    dim: usize,
}

/// The elements of a cache in the format in which they are stored.
#[derive(Clone, Copy)]
enum CacheSlices<'a> {
    F32(DisjointSlices<'a>),
    Bf16(DisjointSlices<'a, bf16>),
    I8(DisjointSlices<'a, i8>),
}

impl<'a> CacheSlices<'a> {
    fn new(stored: &'a mut FlexTensor) -> Self {
        match stored.dtype() {
            DType::BF16 => Self::Bf16(DisjointSlices::new(stored.storage_mut())),
            DType::I8 => Self::I8(DisjointSlices::new(stored.storage_mut())),
            _ => Self::F32(DisjointSlices::new(stored.storage_mut())),
        }
    }

    /// The positions of `span` as f32: in place, or for narrower formats in `scratch`, where the new
    /// positions are not defined.
    ///
    /// # Safety
    /// No other live slice may contain any of them.
    unsafe fn open<'b>(&'b self, span: Span, scratch: &'b mut Vec<f32>) -> &'b mut [f32] {
        let Span { first, known, new, dim } = span;
        if let Self::F32(all) = self {
            // SAFETY: by the caller's promise, here and below
            return unsafe { all.slice(first * dim, (known + new) * dim) };
        }
        scratch.resize((known + new) * dim, 0.0);
        let to = &mut scratch[..known * dim];
        match self {
            Self::F32(_) => unreachable!("these are returned above"),
            Self::Bf16(all) => {
                unsafe { all.slice(first * dim, known * dim) }.convert_to_f32_slice(to);
            }
            Self::I8(all) => {
                let row = dim + SCALE_BYTES;
                widen(unsafe { all.slice(first * row, known * row) }, dim, to);
            }
        }
        scratch
    }

    /// Stores `values`, those of the new positions, and rounds them to the stored format.
    ///
    /// # Safety
    /// No live slice but those of [`open`](Self::open) may contain any of them.
    unsafe fn close(&self, span: Span, values: &mut [f32]) {
        let (start, dim) = (span.first + span.known, span.dim);
        match self {
            Self::F32(_) => {}
            Self::Bf16(all) => {
                // SAFETY: by the caller's promise, here and below
                let stored = unsafe { all.slice(start * dim, values.len()) };
                stored.convert_from_f32_slice(values);
                stored.convert_to_f32_slice(values);
            }
            Self::I8(all) => {
                let row = dim + SCALE_BYTES;
                narrow(values, dim, unsafe { all.slice(start * row, span.new * row) });
            }
        }
    }
}
