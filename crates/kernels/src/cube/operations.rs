//! The operations of the CubeCL backends and the shapes of their outputs.

#![allow(clippy::too_many_arguments, reason = "tensors can only be passed one by one")]

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{TensorMetadata, backend_extension};
use burn::tensor::{DType, Shape, TensorData};

use super::long_attention::{self, ChunkedSizes};
use super::pieces::Pieces;
use crate::optimizer::AdamWStep;

/// Operations with derivatives.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait TrainingOperations: Pieces {
    /// Self-attention over a few positions. See [`crate::self_attention`].
    #[fusion(default)]
    fn short_attention(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        heads: usize,
        group: usize,
    ) -> FloatTensor<Self> {
        Self::short_forward(qkv, cos, sin, positions, heads, group)
    }

    /// Layer norm of the rows of `x` `[rows, width]`.
    #[fusion(default)]
    fn layer_norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        Self::norm_forward(x, gamma, beta, epsilon)
    }

    /// Self-attention over any number of positions, with products of operands in `format`. See
    /// [`crate::chunked_attention`].
    #[fusion(default)]
    fn long_attention(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        hidden: BoolTensor<Self>,
        heads: usize,
        group: usize,
        format: DType,
    ) -> FloatTensor<Self> {
        let sizes = ChunkedSizes::new(&qkv.shape(), heads, group, format);
        let (q, k, v) = Self::split(qkv, cos, sin, positions, heads, format);
        long_attention::forward::<Self>([q, k, v], &hidden, sizes)
    }

    /// The rows `ids` of `table`.
    ///
    /// # Shapes
    /// - `table`: `[entries, width]`
    /// - `ids`: `[count]`
    /// - output: `[count, width]`
    #[fusion(dtype = table, shape = Shape::new([ids[0], table[1]]))]
    fn embed(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self>;

    /// The gradient of [`embed`](Self::embed) with respect to the table. Rows are added in the order
    /// of `ids`, so that the bits do not depend on how the device schedules its threads.
    ///
    /// # Shapes
    /// - `d_rows`: `[count, width]`
    /// - `ids`: `[count]`
    /// - output: `[entries, width]`
    #[fusion(dtype = d_rows, shape = Shape::new([*entries, d_rows[1]]))]
    fn embed_gradient(
        d_rows: FloatTensor<Self>,
        ids: IntTensor<Self>,
        entries: usize,
    ) -> FloatTensor<Self>;
}

/// Operations without derivatives.
#[backend_extension(Cube, Fusion)]
pub(crate) trait InferenceOperations: Pieces {
    /// See [`crate::cached_attention`]. Returns the output, the keys and the values.
    #[fusion(meta = cached_attention_outputs)]
    fn cached_attention(
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        starts: IntTensor<Self>,
        slots: IntTensor<Self>,
        heads: usize,
        group: usize,
        keep: usize,
        most_keys: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Writes the keys and values of new positions. Returns the rotated and scaled queries of the last
    /// `keep` positions in `format`, `[rows, heads, keep, head_dim]`, the keys and the values.
    #[fusion(meta = write_cache_outputs)]
    fn write_cache(
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        starts: IntTensor<Self>,
        slots: IntTensor<Self>,
        keep: usize,
        format: DType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The first `count` positions of the slots of a cache, `[rows, heads, count, head_dim]` in
    /// `format`. Those after `starts` and `time` more are 0.
    #[fusion(dtype = *format, shape = Shape::new([slots[0], cache[1], *count, cache[3]]))]
    fn held(
        cache: FloatTensor<Self>,
        starts: IntTensor<Self>,
        slots: IntTensor<Self>,
        time: usize,
        count: usize,
        format: DType,
    ) -> FloatTensor<Self>;

    /// [`cached_attention`](Self::cached_attention) from many queries: by products of operands in
    /// `format`, in chunks of queries. `hidden` is true at keys that a query may not see,
    /// `[1 or rows, 1, keep, most_keys]`.
    #[fusion(default)]
    fn prefill_attention(
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        starts: IntTensor<Self>,
        slots: IntTensor<Self>,
        hidden: BoolTensor<Self>,
        group: usize,
        keep: usize,
        most_keys: usize,
        format: DType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [rows, time, _] = qkv.shape().dims();
        let [_, heads, _, dim] = keys.shape().dims();
        let (first, keys_seen) = (most_keys - keep, most_keys);
        let (queries, keys, values) = Self::write_cache(
            keys,
            values,
            qkv,
            cos,
            sin,
            positions,
            starts.clone(),
            slots.clone(),
            keep,
            format,
        );
        let held = |cache: &FloatTensor<Self>| {
            Self::held(cache.clone(), starts.clone(), slots.clone(), time, keys_seen, format)
        };
        let sizes =
            ChunkedSizes { rows, heads, dim, queries: keep, keys: keys_seen, first, group, format };
        let operands = [queries, held(&keys), held(&values)];
        (long_attention::forward::<Self>(operands, &hidden, sizes), keys, values)
    }

    /// See [`crate::adamw`]. Returns weights and moments.
    #[fusion(meta = |weights, first, second, _, _, _| {
        (weights.clone(), first.clone(), second.clone())
    })]
    fn adamw(
        weights: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        control: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Writes the sums of the squares of parts of the first `count` tensors to `parts` from `offset` on.
    #[fusion(dtype = parts, shape = parts)]
    fn square_sums(
        x0: FloatTensor<Self>,
        x1: FloatTensor<Self>,
        x2: FloatTensor<Self>,
        x3: FloatTensor<Self>,
        x4: FloatTensor<Self>,
        x5: FloatTensor<Self>,
        x6: FloatTensor<Self>,
        x7: FloatTensor<Self>,
        parts: FloatTensor<Self>,
        offset: usize,
        count: usize,
    ) -> FloatTensor<Self>;

    /// See [`crate::refresh`]. Returns the same memory.
    #[fusion(dtype = tensor, shape = tensor)]
    fn refresh(tensor: FloatTensor<Self>, data: TensorData) -> FloatTensor<Self>;

    /// See [`crate::refresh_ints`]. Returns the same memory.
    #[fusion(dtype = tensor, shape = tensor)]
    fn refresh_ints(tensor: IntTensor<Self>, data: TensorData) -> IntTensor<Self>;

    /// See [`crate::choose`].
    #[fusion(meta = choose_outputs)]
    fn choose(
        logits: FloatTensor<Self>,
        settings: FloatTensor<Self>,
        noise: FloatTensor<Self>,
        block: IntTensor<Self>,
        place: usize,
        pad: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>);
}

fn cached_attention_outputs(
    keys: &TensorSpec,
    values: &TensorSpec,
    qkv: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &usize,
    _: &usize,
    keep: &usize,
    _: &usize,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let shape = Shape::new([qkv.shape[0], *keep, qkv.shape[2] / 3]);
    (TensorSpec::new(shape, qkv.dtype), keys.clone(), values.clone())
}

fn write_cache_outputs(
    keys: &TensorSpec,
    values: &TensorSpec,
    qkv: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    keep: &usize,
    format: &DType,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let shape = Shape::new([qkv.shape[0], keys.shape[1], *keep, keys.shape[3]]);
    (TensorSpec::new(shape, *format), keys.clone(), values.clone())
}

fn choose_outputs(
    logits: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    block: &TensorSpec,
    _: &usize,
    _: &usize,
) -> (TensorSpec, TensorSpec) {
    (TensorSpec::new(Shape::new([logits.shape[0]]), block.dtype), block.clone())
}
