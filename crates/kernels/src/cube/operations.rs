//! The operations of the CubeCL backends and the shapes of their outputs.

#![allow(clippy::too_many_arguments, reason = "tensors can only be passed one by one")]

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::Shape;

/// Operations with derivatives.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait TrainingOperations: Backend {
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
