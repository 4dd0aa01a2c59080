//! The operations of the CubeCL backends and the shapes of their outputs.

#![allow(clippy::too_many_arguments, reason = "tensors can only be passed one by one")]

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::{DType, Shape, TensorData};

use super::layer_norm::part_shape;
use super::long_attention::{self, Plan};
use crate::optimizer::AdamWStep;

/// Parts of operations. They have no derivatives of their own.
#[backend_extension(Cube, Fusion)]
pub(crate) trait Pieces: Backend {
    /// Queries times `head_dim^-0.5`, keys and values in `format`, rotated.
    ///
    /// # Shapes
    /// - `qkv`: `[rows, time, heads * 3 * head_dim]`
    /// - `cos`, `sin`: `[positions, rotated / 2]`
    /// - `positions`: `[1 or rows, time]`
    /// - outputs: `[rows, heads, time, head_dim]` each
    #[fusion(meta = split_outputs)]
    fn split(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        heads: usize,
        format: DType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of [`split`](Self::split) with respect to `qkv`, from gradients in f32.
    #[fusion(dtype = d_q, shape = Shape::new([d_q[0], d_q[2], d_q[1] * 3 * d_q[3]]))]
    fn join(
        d_q: FloatTensor<Self>,
        d_k: FloatTensor<Self>,
        d_v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The product of matrices of one format, summed and returned in f32.
    ///
    /// # Shapes
    /// `[.., m, k]`, `[.., k, n]` -> `[.., m, n]`
    #[fusion(dtype = DType::F32, shape = product_shape(a, b))]
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Attention over at most [`MAX_TIME`](super::short_attention::MAX_TIME) positions, causal by groups
    /// of `group`.
    #[fusion(dtype = qkv, shape = Shape::new([qkv[0], qkv[1], qkv[2] / 3]))]
    fn short_forward(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        heads: usize,
        group: usize,
    ) -> FloatTensor<Self>;

    /// Layer norm of rows.
    #[fusion(dtype = x, shape = x)]
    fn norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// The gradient of [`norm_forward`](Self::norm_forward) with respect to `x`, and parts
    /// `[parts, width]` whose sums are the gradients with respect to `gamma` and `beta`.
    #[fusion(meta = norm_gradient_outputs)]
    fn norm_gradient(
        d_out: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of [`short_forward`](Self::short_forward) with respect to `qkv`.
    #[fusion(dtype = qkv, shape = qkv)]
    fn short_gradient(
        d_out: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        heads: usize,
        group: usize,
    ) -> FloatTensor<Self>;
}

fn split_outputs(
    qkv: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    heads: &usize,
    format: &DType,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let [rows, time, width] = qkv.shape.dims();
    let shape = Shape::new([rows, *heads, time, width / heads / 3]);
    let part = TensorSpec::new(shape, *format);
    (part.clone(), part.clone(), part)
}

fn norm_gradient_outputs(
    _: &TensorSpec,
    x: &TensorSpec,
    _: &TensorSpec,
    _: &f32,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let parts = TensorSpec::new(Shape::new(part_shape(x.shape.dims())), x.dtype);
    (x.clone(), parts.clone(), parts)
}

fn product_shape(a: &Shape, b: &Shape) -> Shape {
    let mut shape = a.clone();
    let last = shape.num_dims() - 1;
    shape[last] = b[last];
    shape
}

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
        let plan = Plan::new(&qkv.shape(), heads, group, format);
        let (q, k, v) = Self::split(qkv, cos, sin, positions, heads, format);
        long_attention::forward::<Self>([q, k, v], &hidden, plan)
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
pub(crate) trait InferenceOperations: Backend {
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
