//! The operations on the CubeCL backends, and their derivatives.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::cached_attention::{Inputs, Sizes, cached_attention};
use super::embedding;
use super::operations::{InferenceOperations, TrainingOperations};

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
        let sizes = Sizes { heads, group, keep, keys: most_keys };
        let (out, [keys, values]) = cached_attention([keys, values], inputs, sizes);
        (out, keys, values)
    }
}

impl<B: Backend + TrainingOperations, C: CheckpointStrategy> TrainingOperations for Autodiff<B, C> {
    fn embed(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Embed;
        impl<B: Backend + TrainingOperations> Backward<B, 1> for Embed {
            type State = (IntTensor<B>, usize);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let (ids, entries) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |d_rows| {
                    B::embed_gradient(d_rows, ids, entries)
                });
            }
        }
        let out = B::embed(table.primitive().clone(), ids.clone());
        let entries = table.primitive().shape()[0];
        match Embed.prepare::<C>([table.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((ids, entries), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn embed_gradient(_: FloatTensor<Self>, _: IntTensor<Self>, _: usize) -> FloatTensor<Self> {
        unreachable!("only the inner backend computes gradients")
    }
}
