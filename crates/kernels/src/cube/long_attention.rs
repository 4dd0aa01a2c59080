//! Attention from many positions, composed in chunks of queries. The scores of one chunk are in
//! memory at a time; the derivative, of self-attention, computes them again.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::tensor::{DType, Shape, Slice};

use super::pieces::Pieces;

/// Bytes of the scores of a chunk.
const CHUNK_BYTES: usize = 64 << 20;

/// The score of a hidden key, as in the layers.
const MASKED_SCORE: f32 = -1e30;

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkedSizes {
    pub(super) rows: usize,
    pub(super) heads: usize,
    pub(super) dim: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// The position of the first query; of several rows, the last of these positions.
    pub(super) first: usize,
    /// Positions per group of the causal mask.
    pub(super) group: usize,
    /// The format of the operands of products.
    pub(super) format: DType,
}

impl ChunkedSizes {
    /// The sizes of self-attention over whole sequences.
    pub(super) fn new(qkv: &Shape, heads: usize, group: usize, format: DType) -> Self {
        let [rows, time, width] = qkv.dims();
        let dim = width / heads / 3;
        Self { rows, heads, dim, queries: time, keys: time, first: 0, group, format }
    }

    /// The queries of each chunk, and the number of keys that the chunk sees.
    fn chunks(self) -> impl DoubleEndedIterator<Item = (Range<usize>, usize)> {
        let per_query = 4 * self.rows * self.heads * self.keys;
        let count = (CHUNK_BYTES / per_query.max(1)).clamp(1, self.queries);
        (0..self.queries.div_ceil(count)).map(move |chunk| {
            let queries = chunk * count..((chunk + 1) * count).min(self.queries);
            let keys = ((self.first + queries.end - 1) / self.group + 1) * self.group;
            (queries, keys.min(self.keys))
        })
    }
}

/// Returns the output `[rows, queries, heads * dim]` in f32. `hidden` is true at keys that a query may
/// not see, `[1 or rows, 1, queries, keys]`.
pub(super) fn forward<B: Pieces>(
    [q, k, v]: [FloatTensor<B>; 3],
    hidden: &BoolTensor<B>,
    sizes: ChunkedSizes,
) -> FloatTensor<B> {
    let out = sizes.chunks().map(|(queries, keys)| {
        let q = positions::<B>(&q, queries.clone());
        let k = positions::<B>(&k, 0..keys);
        let p = probabilities::<B>(q, k, hidden, queries, sizes);
        B::product(in_format::<B>(p, sizes), positions::<B>(&v, 0..keys))
    });
    let out = whole::<B>(out.collect()); // [rows, heads, queries, dim]
    let ChunkedSizes { rows, heads, queries, dim, .. } = sizes;
    B::float_reshape(B::float_swap_dims(out, 1, 2), Shape::new([rows, queries, heads * dim]))
}

/// Returns the gradients of self-attention with respect to queries, keys and values in f32,
/// `[rows, heads, time, dim]` each.
pub(super) fn gradients<B: Pieces>(
    d_out: FloatTensor<B>,
    [q, k, v]: [FloatTensor<B>; 3],
    hidden: &BoolTensor<B>,
    sizes: ChunkedSizes,
) -> [FloatTensor<B>; 3] {
    let ChunkedSizes { rows, heads, queries, dim, .. } = sizes;
    let d_out = B::float_reshape(d_out, Shape::new([rows, queries, heads, dim]));
    let d_out = in_format::<B>(B::float_swap_dims(d_out, 1, 2), sizes);
    let (mut d_q, mut d_k, mut d_v) = (Vec::new(), None, None);
    // the last chunk sees every key, so that its sums have the whole shape
    for (queries, keys) in sizes.chunks().rev() {
        let q = positions::<B>(&q, queries.clone());
        let (k, v) = (positions::<B>(&k, 0..keys), positions::<B>(&v, 0..keys));
        let d_out = positions::<B>(&d_out, queries.clone());
        let p = probabilities::<B>(q.clone(), k.clone(), hidden, queries, sizes);
        let d_p = B::product(d_out.clone(), B::float_swap_dims(v, 2, 3));
        let mean = B::float_sum_dim(B::float_mul(p.clone(), d_p.clone()), 3);
        let d_scores = B::float_mul(p.clone(), B::float_sub(d_p, mean));
        let (p, d_scores) = (in_format::<B>(p, sizes), in_format::<B>(d_scores, sizes));
        d_q.push(B::product(d_scores.clone(), k));
        d_k = Some(added::<B>(d_k, B::product(B::float_swap_dims(d_scores, 2, 3), q)));
        d_v = Some(added::<B>(d_v, B::product(B::float_swap_dims(p, 2, 3), d_out)));
    }
    d_q.reverse();
    let some = "there is a chunk";
    [whole::<B>(d_q), d_k.expect(some), d_v.expect(some)]
}

/// The positions of all chunks, `[rows, heads, time, dim]`.
fn whole<B: Pieces>(mut chunks: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    if chunks.len() == 1 { chunks.remove(0) } else { B::float_cat(chunks, 2) }
}

/// The probabilities in f32 of `queries`, `[rows, heads, queries, keys]`.
fn probabilities<B: Pieces>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    hidden: &BoolTensor<B>,
    queries: Range<usize>,
    sizes: ChunkedSizes,
) -> FloatTensor<B> {
    let keys = k.shape()[2];
    let scores = B::product(q, B::float_swap_dims(k, 2, 3));
    let all = Slice::from(..);
    let hidden =
        B::bool_slice(hidden.clone(), &[all, all, queries.clone().into(), (0..keys).into()]);
    let shape = Shape::new([sizes.rows, sizes.heads, queries.len(), keys]);
    let scores = B::float_mask_fill(scores, B::bool_expand(hidden, shape), MASKED_SCORE.into());
    let most = B::float_max_dim(scores.clone(), 3);
    let weights = B::float_exp(B::float_sub(scores, most));
    let sum = B::float_sum_dim(weights.clone(), 3);
    B::float_div(weights, sum)
}

/// The positions `range` of `x` `[rows, heads, time, dim]`.
fn positions<B: Pieces>(x: &FloatTensor<B>, range: Range<usize>) -> FloatTensor<B> {
    if range == (0..x.shape()[2]) {
        return x.clone();
    }
    let all = Slice::from(..);
    B::float_slice(x.clone(), &[all, all, range.into(), all])
}

fn in_format<B: Pieces>(x: FloatTensor<B>, sizes: ChunkedSizes) -> FloatTensor<B> {
    if x.dtype() == sizes.format { x } else { B::float_cast(x, sizes.format.into()) }
}

/// Adds `more` to the first positions of `sum`.
fn added<B: Pieces>(sum: Option<FloatTensor<B>>, more: FloatTensor<B>) -> FloatTensor<B> {
    let Some(sum) = sum else { return more };
    let count = more.shape()[2];
    if count == sum.shape()[2] {
        return B::float_add(sum, more);
    }
    let all = Slice::from(..);
    let first = [all, all, (0..count).into(), all];
    let more = B::float_add(B::float_slice(sum.clone(), &first), more);
    B::float_slice_assign(sum, &first, more)
}
