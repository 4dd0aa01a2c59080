//! Parts of the operations of the CubeCL backends, and the shapes of their outputs.

#![allow(clippy::too_many_arguments, reason = "tensors can only be passed one by one")]

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::{DType, Shape};

use super::layer_norm::part_shape;

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
