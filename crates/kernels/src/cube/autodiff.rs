//! The derivatives of the operations.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::{DType, Shape};

use super::long_attention::{self, ChunkedSizes};
use super::operations::TrainingOperations;
use super::pieces::Pieces;

const INNER: &str = "only the inner backend computes this";

/// Cosines, sines and positions.
type AngleTensors<B> = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>);

/// The pieces are called on the inner backend only.
impl<B: TrainingOperations, C: CheckpointStrategy> Pieces for Autodiff<B, C> {
    fn split(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: usize,
        _: DType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{INNER}")
    }

    fn join(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        unreachable!("{INNER}")
    }

    fn product(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{INNER}")
    }

    fn short_forward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: usize,
        _: usize,
    ) -> FloatTensor<Self> {
        unreachable!("{INNER}")
    }

    fn norm_forward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f32,
    ) -> FloatTensor<Self> {
        unreachable!("{INNER}")
    }

    fn norm_gradient(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{INNER}")
    }

    fn short_gradient(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: usize,
        _: usize,
    ) -> FloatTensor<Self> {
        unreachable!("{INNER}")
    }
}

impl<B: TrainingOperations, C: CheckpointStrategy> TrainingOperations for Autodiff<B, C> {
    fn short_attention(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        positions: IntTensor<Self>,
        heads: usize,
        group: usize,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ShortAttention;
        impl<B: TrainingOperations> Backward<B, 1> for ShortAttention {
            type State = (FloatTensor<B>, AngleTensors<B>, [usize; 2]);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let (qkv, (cos, sin, positions), [heads, group]) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |d_out| {
                    B::short_gradient(d_out, qkv, cos, sin, positions, heads, group)
                });
            }
        }
        let (node, qkv) = (qkv.node(), qkv.primitive().clone());
        let (cos, sin) = (cos.primitive().clone(), sin.primitive().clone());
        let angles = (cos.clone(), sin.clone(), positions.clone());
        let out = B::short_forward(qkv.clone(), cos, sin, positions, heads, group);
        match ShortAttention.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((qkv, angles, [heads, group]), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn layer_norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct LayerNorm;
        impl<B: TrainingOperations> Backward<B, 3> for LayerNorm {
            type State = (FloatTensor<B>, FloatTensor<B>, f32);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let (x, gamma, epsilon) = ops.state;
                let [of_x, of_gamma, of_beta] = ops.parents;
                let d_out = grads.consume::<B>(&ops.node);
                let (d_x, gamma_parts, beta_parts) = B::norm_gradient(d_out, x, gamma, epsilon);
                let sum = |parts: FloatTensor<B>| {
                    let width = parts.shape()[1];
                    B::float_reshape(B::float_sum_dim(parts, 0), Shape::new([width]))
                };
                let of_parameters = [(of_gamma, sum(gamma_parts)), (of_beta, sum(beta_parts))];
                for (parent, gradient) in [(of_x, d_x)].into_iter().chain(of_parameters) {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, gradient);
                    }
                }
            }
        }
        let nodes = [x.node(), gamma.node(), beta.node()];
        let [x, gamma, beta] = [x, gamma, beta].map(|tensor| tensor.primitive().clone());
        let out = B::norm_forward(x.clone(), gamma.clone(), beta, epsilon);
        match LayerNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, gamma, epsilon), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

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
        #[derive(Debug)]
        struct LongAttention;
        impl<B: TrainingOperations> Backward<B, 1> for LongAttention {
            type State = (FloatTensor<B>, AngleTensors<B>, BoolTensor<B>, usize, ChunkedSizes);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let (qkv, (cos, sin, positions), hidden, heads, sizes) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |d_out| {
                    let (c, s, p) = (cos.clone(), sin.clone(), positions.clone());
                    let (q, k, v) = B::split(qkv, c, s, p, heads, sizes.format);
                    let [d_q, d_k, d_v] =
                        long_attention::gradients::<B>(d_out, [q, k, v], &hidden, sizes);
                    B::join(d_q, d_k, d_v, cos, sin, positions)
                });
            }
        }
        let (node, qkv) = (qkv.node(), qkv.primitive().clone());
        let (cos, sin) = (cos.primitive().clone(), sin.primitive().clone());
        let angles = (cos.clone(), sin.clone(), positions.clone());
        let sizes = ChunkedSizes::new(&qkv.shape(), heads, group, format);
        let (q, k, v) = B::split(qkv.clone(), cos, sin, positions, heads, format);
        let out = long_attention::forward::<B>([q, k, v], &hidden, sizes);
        match LongAttention.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((qkv, angles, hidden, heads, sizes), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn embed(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Embed;
        impl<B: TrainingOperations> Backward<B, 1> for Embed {
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
        unreachable!("{INNER}")
    }
}
