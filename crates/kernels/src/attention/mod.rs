//! Rotary self-attention from the fused projection, with its derivative.

mod head;
mod long;
mod short;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Shape, Tensor};
use rayon::prelude::*;

use crate::parts::{Shared, contiguous, numbers, tensor};
use crate::{Angles, Order};
use head::Heads;

/// Up to this many positions the scores are few enough for plain loops.
const SHORT: usize = 16;

/// Finite, so that a query that sees nothing has numbers, and its (unused) gradients too.
const MASKED_SCORE: f32 = -1e30;

pub fn self_attention(
    qkv: &Tensor<3>,
    heads: usize,
    angles: &Angles,
    order: &Order,
) -> Option<Tensor<3>> {
    let [batch, time, width] = qkv.dims();
    let task = Task {
        heads: Heads { batch, time, heads, dim: width / heads / 3 },
        angles: angles.clone(),
        order: order.clone(),
    };
    if qkv.is_autodiff() {
        let qkv = qkv.clone().try_into_primitive::<Autodiff<Flex, NoCheckpointing>>().ok()?;
        let input = contiguous(qkv.primitive())?;
        let (out, lse) = task.forward(&input);
        let node = qkv.node();
        let out = match SelfAttention.prepare::<NoCheckpointing>([node]).compute_bound().stateful()
        {
            OpsKind::Tracked(prep) => {
                let saved = Saved { task, qkv: input, out: out.clone(), lse };
                prep.finish(saved, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        return Some(Tensor::from_primitive::<Autodiff<Flex, NoCheckpointing>>(out));
    }
    let qkv = contiguous(&qkv.clone().try_into_primitive::<Flex>().ok()?)?;
    Some(Tensor::from_primitive::<Flex>(task.forward(&qkv).0))
}

#[derive(Debug)]
struct SelfAttention;

/// What the derivative needs.
#[derive(Clone, Debug)]
struct Saved {
    task: Task,
    qkv: FlexTensor,
    out: FlexTensor,
    /// Log of each query's softmax denominator, `[batch, heads, time]`.
    lse: FlexTensor,
}

impl Backward<Flex, 1> for SelfAttention {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let saved = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |d_out| saved.task.backward(&saved, d_out));
    }
}

/// Shapes, angles and order of one call.
#[derive(Clone, Debug)]
struct Task {
    heads: Heads,
    angles: Angles,
    order: Order,
}

/// Scratch of one thread.
#[derive(Default)]
struct Scratch {
    /// `[time, dim]` each; queries are scaled
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_q: Vec<f32>,
    d_k: Vec<f32>,
    d_v: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
}

impl Scratch {
    fn forward(&mut self, numbers: usize) {
        for part in [&mut self.q, &mut self.k, &mut self.v] {
            part.resize(numbers, 0.0);
        }
    }

    fn backward(&mut self, numbers: usize) {
        self.forward(numbers);
        for part in [&mut self.d_q, &mut self.d_k, &mut self.d_v] {
            part.clear();
            part.resize(numbers, 0.0);
        }
    }
}

impl Task {
    /// Output `[batch, time, heads * dim]` and [`Saved::lse`].
    fn forward(&self, qkv: &FlexTensor) -> (FlexTensor, FlexTensor) {
        let Heads { batch, time, heads, dim } = self.heads;
        let qkv = numbers(qkv);
        let mut out = vec![0.0; batch * time * heads * dim];
        let mut lse = vec![0.0; batch * heads * time];
        let (shared_out, shared_lse) = (Shared::new(&mut out), Shared::new(&mut lse));
        self.for_each_head(|scratch, row, head| {
            scratch.forward(time * dim);
            self.heads.load(qkv, row, head, &self.angles, scratch);
            // SAFETY: each (row, head) is one task, and owns these rows of the log-sums
            let lse = unsafe { shared_lse.slice((row * heads + head) * time, time) };
            if time <= SHORT {
                short::forward(self, row, head, scratch, lse, &shared_out);
            } else {
                long::forward(self, row, head, scratch, lse, shared_out);
            }
        });
        let out = tensor(out, Shape::new([batch, time, heads * dim]));
        (out, tensor(lse, Shape::new([batch, heads, time])))
    }

    /// Gradient of the projection from that of the output.
    fn backward(&self, saved: &Saved, d_out: FlexTensor) -> FlexTensor {
        let Heads { batch, time, heads, dim } = self.heads;
        let d_out = d_out.to_contiguous();
        let (d_out, out, lse) = (numbers(&d_out), numbers(&saved.out), numbers(&saved.lse));
        let qkv = numbers(&saved.qkv);
        let mut d_qkv = vec![0.0; qkv.len()];
        let shared = Shared::new(&mut d_qkv);
        self.for_each_head(|scratch, row, head| {
            scratch.backward(time * dim);
            self.heads.load(qkv, row, head, &self.angles, scratch);
            let lse = &lse[(row * heads + head) * time..][..time];
            if time <= SHORT {
                short::backward(self, row, head, scratch, lse, out, d_out);
            } else {
                long::backward(self, row, head, scratch, lse, out, d_out);
            }
            self.heads.store(shared, row, head, &self.angles, scratch);
        });
        tensor(d_qkv, Shape::new([batch, time, 3 * heads * dim]))
    }

    /// Sets the scores of keys that are padding so low that they vanish beside any other.
    fn hide(&self, row: usize, scores: &mut [f32]) {
        if let Some(seen) = &self.order.seen {
            let seen = &seen[row * self.heads.time..];
            for (score, seen) in scores.iter_mut().zip(seen) {
                if !seen {
                    *score = MASKED_SCORE;
                }
            }
        }
    }

    /// Runs `one` for every row and head, long sequences one by one, short ones many a task.
    fn for_each_head(&self, one: impl Fn(&mut Scratch, usize, usize) + Sync) {
        let Heads { batch, time, heads, .. } = self.heads;
        let at_least = (256 / time).max(1);
        (0..batch * heads)
            .into_par_iter()
            .with_min_len(at_least)
            .for_each_init(Scratch::default, |scratch, i| one(scratch, i / heads, i % heads));
    }
}
