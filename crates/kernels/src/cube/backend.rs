//! The operations on the CubeCL backends.

use burn::tensor::{DType, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;

use super::cached_attention::{CachedSizes, Inputs, cached_attention, held, write_cache};
use super::operations::{InferenceOperations, TrainingOperations};
use super::pieces::Pieces;
use super::rotation::{self, Angles};
use super::{adamw, choose, embedding, layer_norm, short_attention};
use crate::optimizer::AdamWStep;

impl Pieces for CubeBackend {
    fn split(
        qkv: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        positions: CubeTensor,
        heads: usize,
        format: DType,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let angles = Angles::contiguous(cos, sin, positions);
        let [q, k, v] = rotation::split(qkv, angles, heads, format);
        (q, k, v)
    }

    fn join(
        d_q: CubeTensor,
        d_k: CubeTensor,
        d_v: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        positions: CubeTensor,
    ) -> CubeTensor {
        rotation::join([d_q, d_k, d_v], Angles::contiguous(cos, sin, positions))
    }

    fn product(a: CubeTensor, b: CubeTensor) -> CubeTensor {
        assert_eq!(a.dtype, b.dtype, "a product of two formats");
        matmul(a, b, None, MatmulStrategy::default(), DType::F32).expect("the shapes fit")
    }

    fn short_forward(
        qkv: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        positions: CubeTensor,
        heads: usize,
        group: usize,
    ) -> CubeTensor {
        short_attention::attention(qkv, Angles::contiguous(cos, sin, positions), heads, group)
    }

    fn norm_forward(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        epsilon: f32,
    ) -> CubeTensor {
        layer_norm::layer_norm(x, gamma, beta, epsilon)
    }

    fn norm_gradient(
        d_out: CubeTensor,
        x: CubeTensor,
        gamma: CubeTensor,
        epsilon: f32,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [d_x, of_gamma, of_beta] = layer_norm::gradients(d_out, x, gamma, epsilon);
        (d_x, of_gamma, of_beta)
    }

    fn short_gradient(
        d_out: CubeTensor,
        qkv: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        positions: CubeTensor,
        heads: usize,
        group: usize,
    ) -> CubeTensor {
        let angles = Angles::contiguous(cos, sin, positions);
        short_attention::gradient(d_out, qkv, angles, heads, group)
    }
}

impl TrainingOperations for CubeBackend {
    fn embed(table: CubeTensor, ids: CubeTensor) -> CubeTensor {
        embedding::embed(table, ids)
    }

    fn embed_gradient(d_rows: CubeTensor, ids: CubeTensor, entries: usize) -> CubeTensor {
        embedding::embed_gradient(d_rows, ids, entries)
    }
}

impl InferenceOperations for CubeBackend {
    fn cached_attention(
        keys: CubeTensor,
        values: CubeTensor,
        qkv: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        positions: CubeTensor,
        starts: CubeTensor,
        slots: CubeTensor,
        heads: usize,
        group: usize,
        keep: usize,
        most_keys: usize,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let inputs = Inputs { qkv, table: [cos, sin], positions, starts, slots };
        let sizes = CachedSizes { heads, group, keep, keys: most_keys };
        let (out, [keys, values]) = cached_attention([keys, values], inputs, sizes);
        (out, keys, values)
    }

    fn write_cache(
        keys: CubeTensor,
        values: CubeTensor,
        qkv: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        positions: CubeTensor,
        starts: CubeTensor,
        slots: CubeTensor,
        keep: usize,
        format: DType,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let inputs = Inputs { qkv, table: [cos, sin], positions, starts, slots };
        let (queries, [keys, values]) = write_cache([keys, values], inputs, keep, format);
        (queries, keys, values)
    }

    fn held(
        cache: CubeTensor,
        starts: CubeTensor,
        slots: CubeTensor,
        time: usize,
        count: usize,
        format: DType,
    ) -> CubeTensor {
        held(cache, starts, slots, [time, count], format)
    }

    fn adamw(
        weights: CubeTensor,
        first: CubeTensor,
        second: CubeTensor,
        gradient: CubeTensor,
        control: CubeTensor,
        step: AdamWStep,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [weights, first, second] =
            adamw::adamw([weights, first, second], gradient, control, step);
        (weights, first, second)
    }

    fn square_sums(
        x0: CubeTensor,
        x1: CubeTensor,
        x2: CubeTensor,
        x3: CubeTensor,
        x4: CubeTensor,
        x5: CubeTensor,
        x6: CubeTensor,
        x7: CubeTensor,
        parts: CubeTensor,
        offset: usize,
        count: usize,
    ) -> CubeTensor {
        adamw::square_sums([x0, x1, x2, x3, x4, x5, x6, x7], parts, offset, count)
    }

    fn refresh(tensor: CubeTensor, data: TensorData) -> CubeTensor {
        assert!(tensor.is_contiguous(), "a refresh writes no padding between rows");
        tensor.client.write(&tensor.handle, data.into_bytes());
        tensor
    }

    fn refresh_ints(tensor: CubeTensor, data: TensorData) -> CubeTensor {
        Self::refresh(tensor, data)
    }

    fn choose(
        logits: CubeTensor,
        settings: CubeTensor,
        noise: CubeTensor,
        block: CubeTensor,
        place: usize,
        pad: usize,
    ) -> (CubeTensor, CubeTensor) {
        choose::choose(logits, settings, noise, block, place, pad)
    }
}
