//! Layers whose activations are not kept for the backward pass, which computes them again.
//!
//! The forward pass runs the layer without a record of its operations and keeps its inputs only. The
//! backward pass runs the layer again, with a record, and takes the gradients from there.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, BackendTensor, DispatchDevice, DispatchKindConversion,
    DispatchTensor,
};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The most inputs and parameters of a layer together. Autodiff needs a fixed number of parents.
const MOST_INPUTS: usize = 24;

/// See [`crate::recomputed`].
pub(crate) fn recomputed<M, F>(
    layer: &M,
    x: &Tensor<3>,
    others: &[Tensor<4>],
    forward: F,
) -> Option<Tensor<3>>
where
    M: Module + Sync + 'static,
    F: Fn(&M, Tensor<3>, Vec<Tensor<4>>) -> Tensor<3> + Send + Sync + 'static,
{
    let mut inputs = vec![x.clone().into_dispatch()];
    inputs.extend(others.iter().cloned().map(Tensor::into_dispatch));
    layer.visit(&mut CollectParameters(&mut inputs));
    if !x.is_tracked() || inputs.len() > MOST_INPUTS {
        return None;
    }
    let record = match x.device().inner().as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => record::<burn::backend::Flex>,
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(_) => record::<burn::backend::Cube>,
        #[allow(unreachable_patterns, reason = "a build may have these two backends only")]
        _ => return None,
    };
    let layer =
        RecomputedLayer { layer: layer.clone().map(&mut Untrack), forward, others: others.len() };
    let others = others.iter().cloned().map(untracked).collect();
    let out = (layer.forward)(&layer.layer, untracked(x.clone()), others);
    record(inputs, out.into_dispatch(), Arc::new(layer)).map(Tensor::from_dispatch)
}

/// `x` on its autodiff device, outside every graph.
fn untracked<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.inner())
}

struct CollectParameters<'a>(&'a mut Vec<DispatchTensor>);

impl ModuleVisitor for CollectParameters<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_dispatch());
    }
}

struct Untrack;

impl ModuleMapper for Untrack {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(untracked)
    }
}

/// Replaces the parameters of a module, in their order.
struct Replace<I>(I);

impl<I: Iterator<Item = DispatchTensor>> ModuleMapper for Replace<I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.next() {
            Some(tensor) => param.map(|_| Tensor::from_dispatch(tensor)),
            None => param,
        }
    }
}

/// A layer with untracked parameters, and its forward pass.
struct RecomputedLayer<M, F> {
    layer: M,
    forward: F,
    /// Inputs besides the hidden states.
    others: usize,
}

trait RunAgain: Send + Sync {
    /// Runs the layer on its inputs and parameters, in this order.
    fn run(&self, inputs: Vec<DispatchTensor>) -> DispatchTensor;
}

impl<M, F> RunAgain for RecomputedLayer<M, F>
where
    M: Module + Sync,
    F: Fn(&M, Tensor<3>, Vec<Tensor<4>>) -> Tensor<3> + Send + Sync,
{
    fn run(&self, mut inputs: Vec<DispatchTensor>) -> DispatchTensor {
        let parameters = inputs.split_off(1 + self.others);
        let layer = self.layer.clone().map(&mut Replace(parameters.into_iter()));
        let others = inputs.split_off(1).into_iter().map(Tensor::from_dispatch).collect();
        let x = inputs.remove(0);
        (self.forward)(&layer, Tensor::from_dispatch(x), others).into_dispatch()
    }
}

/// Adds `out`, the output of `layer` for `inputs`, to the graph of `inputs`.
fn record<B: Backend>(
    inputs: Vec<DispatchTensor>,
    out: DispatchTensor,
    layer: Arc<dyn RunAgain>,
) -> Option<DispatchTensor>
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    let inputs = inputs.into_iter().map(from_dispatch::<B>).collect::<Option<Vec<_>>>()?;
    let out = from_dispatch::<B>(out)?.into_primitive();
    let mut nodes: Vec<_> = inputs.iter().map(|input| input.node()).collect();
    // constants in place of the parents that there are not
    nodes.resize_with(MOST_INPUTS, || Autodiff::<B>::from_inner(out.clone()).node());
    let inputs = inputs.into_iter().map(|input| input.into_primitive()).collect();
    let state = Kept::<B> { inputs, layer };
    let out = match Recomputed
        .prepare::<NoCheckpointing>(nodes.try_into().ok()?)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(state, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    Some(to_dispatch::<B>(out))
}

fn from_dispatch<B: Backend>(tensor: DispatchTensor) -> Option<FloatTensor<Autodiff<B>>>
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    let tensor = <DispatchTensor as DispatchKindConversion<Autodiff<B>>>::try_into_backend(tensor);
    tensor.ok().map(BackendTensor::float)
}

fn to_dispatch<B: Backend>(tensor: FloatTensor<Autodiff<B>>) -> DispatchTensor
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    DispatchTensor::from_backend(BackendTensor::<Autodiff<B>>::Float(tensor))
}

#[derive(Debug)]
struct Recomputed;

/// What a layer keeps for its backward pass.
#[derive(Clone)]
struct Kept<B: Backend> {
    inputs: Vec<FloatTensor<B>>,
    layer: Arc<dyn RunAgain>,
}

impl<B: Backend> fmt::Debug for Kept<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl<B: Backend> Backward<B, MOST_INPUTS> for Recomputed
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>>,
{
    type State = Kept<B>;

    fn backward(
        self,
        ops: Ops<Self::State, MOST_INPUTS>,
        grads: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let Kept { inputs, layer } = ops.state;
        let d_out = grads.consume::<B>(&ops.node);
        let leaf = |(input, parent): (FloatTensor<B>, &Option<_>)| {
            let leaf = Autodiff::<B>::from_inner(input);
            if parent.is_some() { leaf.require_grad() } else { leaf }
        };
        let leaves: Vec<_> = inputs.into_iter().zip(&ops.parents).map(leaf).collect();
        let out = layer.run(leaves.iter().cloned().map(to_dispatch::<B>).collect());
        let out = from_dispatch::<B>(out).expect("a layer keeps its backend");
        // the gradient of this sum with respect to `out` is `d_out`, in all bits
        let sum = Autodiff::<B>::float_mul(out, Autodiff::<B>::from_inner(d_out));
        let mut gradients = Autodiff::<B>::float_sum(sum).backward();
        for (leaf, parent) in leaves.iter().zip(ops.parents) {
            // a layer may not use all its parameters
            if let (Some(parent), Some(gradient)) = (parent, leaf.grad_remove(&mut gradients)) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}
