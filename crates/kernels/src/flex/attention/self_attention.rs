//! Self-attention of whole sequences, with its derivative.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Shape, Tensor};

use crate::causal_mask::CausalMask;
use crate::flex::parts::{DisjointSlices, contiguous, tensor, values};
use crate::rotary::RotaryAngles;

use super::head::Heads;
use super::per_head::{MAX_LOOP_QUERIES, Scratch, for_each_head};
use super::view::{Outputs, View};
use super::{loops, products, tiles};

/// See [`crate::self_attention`].
pub(crate) fn self_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &RotaryAngles,
    mask: &CausalMask,
) -> Option<Tensor<3>> {
    let [batch, time, width] = qkv.dims();
    let call = Call {
        heads: Heads { batch, time, heads, dim: width / heads / 3 },
        angles: angles.clone(),
        mask: mask.clone(),
    };
    if qkv.is_autodiff() {
        let qkv = qkv.clone().try_into_primitive::<Autodiff<Flex, NoCheckpointing>>().ok()?;
        let input = contiguous(qkv.primitive())?;
        let (out, lse) = call.forward(&input);
        let node = qkv.node();
        let out = match call.prepare::<NoCheckpointing>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(Saved { qkv: input, out: out.clone(), lse }, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        return Some(Tensor::from_primitive::<Autodiff<Flex, NoCheckpointing>>(out));
    }
    let qkv = contiguous(&qkv.clone().try_into_primitive::<Flex>().ok()?)?;
    Some(Tensor::from_primitive::<Flex>(call.forward(&qkv).0))
}

/// The state that the derivative needs.
#[derive(Clone, Debug)]
struct Saved {
    qkv: FlexTensor,
    out: FlexTensor,
    /// Log of each query's softmax denominator, `[batch, heads, time]`.
    lse: FlexTensor,
}

/// The arguments of one call, without the projection.
#[derive(Debug)]
struct Call {
    heads: Heads,
    angles: RotaryAngles,
    mask: CausalMask,
}

impl Backward<Flex, 1> for Call {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let saved = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |d_out| self.gradient(&saved, d_out));
    }
}

impl Scratch {
    /// Reads the queries, keys and values of a head, and makes room for its output.
    fn load(&mut self, call: &Call, qkv: &[f32], row: usize, head: usize) {
        let count = call.heads.time * call.heads.dim;
        let Self { q, k, v, out, .. } = self;
        for part in [&mut *q, &mut *k, &mut *v, &mut *out] {
            part.resize(count, 0.0);
        }
        call.heads.load(qkv, (row, head), &call.angles, [q, k, v]);
    }
}

impl Call {
    /// Returns the output `[batch, time, heads * dim]` and [`Saved::lse`].
    fn forward(&self, qkv: &FlexTensor) -> (FlexTensor, FlexTensor) {
        let Heads { batch, time, heads, dim } = self.heads;
        let qkv = values(qkv);
        let mut out = vec![0.0; batch * time * heads * dim];
        let mut lse = vec![0.0; batch * heads * time];
        let (all_out, all_lse) = (DisjointSlices::new(&mut out), DisjointSlices::new(&mut lse));
        for_each_head(batch, heads, time * time, |scratch, row, head| {
            scratch.load(self, qkv, row, head);
            // SAFETY: only the task of this (row, head) uses these elements
            let lse = unsafe { all_lse.slice((row * heads + head) * time, time) };
            let Scratch { q, k, v, out, scores, .. } = scratch;
            let view = View { q, k, v, mask: &self.mask, row, skip: 0, dim };
            tiles::forward(view, out, lse, scores);
            for (i, from) in out.chunks_exact(dim).enumerate() {
                // SAFETY: only the task of this (row, head) uses these elements
                let to = unsafe { all_out.slice(self.heads.out_offset(row, i, head), dim) };
                to.copy_from_slice(from);
            }
        });
        let out = tensor(out, Shape::new([batch, time, heads * dim]));
        (out, tensor(lse, Shape::new([batch, heads, time])))
    }

    /// Returns the gradient of the projection for the gradient `d_out` of the output.
    fn gradient(&self, saved: &Saved, d_out: FlexTensor) -> FlexTensor {
        let Heads { batch, time, heads, dim } = self.heads;
        let d_out = d_out.to_contiguous();
        let (d_out, out, lse) = (values(&d_out), values(&saved.out), values(&saved.lse));
        let qkv = values(&saved.qkv);
        let mut d_qkv = vec![0.0; qkv.len()];
        let all_d_qkv = DisjointSlices::new(&mut d_qkv);
        for_each_head(batch, heads, time * time, |scratch, row, head| {
            scratch.load(self, qkv, row, head);
            let Scratch { q, k, v, d_q, d_k, d_v, scores, d_scores, .. } = scratch;
            for part in [&mut *d_q, &mut *d_k, &mut *d_v] {
                part.clear();
                part.resize(time * dim, 0.0);
            }
            let view = View { q, k, v, mask: &self.mask, row, skip: 0, dim };
            let lse = &lse[(row * heads + head) * time..][..time];
            let first = self.heads.out_offset(row, 0, head);
            let (out, d_out) = (&out[first..], &d_out[first..]);
            let outputs = Outputs { lse, out, d_out, stride: heads * dim };
            if time <= MAX_LOOP_QUERIES {
                loops::backward(view, outputs, [d_q, d_k, d_v], scores);
            } else {
                products::backward(view, outputs, [d_q, d_k, d_v], [scores, d_scores]);
            }
            self.heads.store_gradient(&all_d_qkv, (row, head), &self.angles, [d_q, d_k, d_v]);
        });
        tensor(d_qkv, Shape::new([batch, time, 3 * heads * dim]))
    }
}
