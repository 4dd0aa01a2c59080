//! Reports the gradients of a layer as soon as its backward pass is done, while those of the layers below it
//! are still computed.
//!
//! The input of the layer passes through an operation that changes nothing. Its backward step runs after
//! those of all operations that depend on it, so that by then the gradients of the layer are complete.

use std::fmt;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchDevice, DispatchKindConversion, DispatchTensor,
    TensorMetadata,
};
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Shape, Tensor};

use crate::Report;

/// See [`crate::watched`].
pub(crate) fn watched<M: Module>(layer: &M, x: &Tensor<3>, report: &Report) -> Option<Tensor<3>> {
    if !x.is_tracked() {
        return None;
    }
    let watch = match x.device().inner().as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => watch::<burn::backend::Flex>,
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(_) => watch::<burn::backend::Cube>,
        #[allow(unreachable_patterns, reason = "a build may have these two backends only")]
        _ => return None,
    };
    let mut parameters = CollectTracked(Vec::new());
    layer.visit(&mut parameters);
    watch(x.clone().into_dispatch(), parameters.0, report.clone()).map(Tensor::from_dispatch)
}

struct CollectTracked(Vec<(ParamId, DispatchTensor)>);

impl ModuleVisitor for CollectTracked {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.0.push((param.id, param.val().into_dispatch()));
        }
    }
}

fn watch<B: Backend>(
    x: DispatchTensor,
    parameters: Vec<(ParamId, DispatchTensor)>,
    report: Report,
) -> Option<DispatchTensor>
where
    DispatchTensor: DispatchKindConversion<Autodiff<B>> + DispatchKindConversion<B>,
{
    let autodiff = |tensor: DispatchTensor| {
        <DispatchTensor as DispatchKindConversion<Autodiff<B>>>::try_into_backend(tensor)
            .ok()
            .map(BackendTensor::float)
    };
    let x = autodiff(x)?;
    let parameters = parameters.into_iter().map(|(id, tensor)| Some((id, autodiff(tensor)?)));
    let parameters = parameters.collect::<Option<Vec<_>>>()?;
    let state = Watch::<B> { parameters, report };
    let node = x.node();
    let out = x.into_primitive();
    let out = match Watched.prepare::<NoCheckpointing>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    Some(DispatchTensor::from_backend(BackendTensor::<Autodiff<B>>::Float(out)))
}

#[derive(Debug)]
struct Watched;

/// The parameters of a layer, and who wants their gradients.
#[derive(Clone)]
struct Watch<B: Backend> {
    parameters: Vec<(ParamId, FloatTensor<Autodiff<B>>)>,
    report: Report,
}

impl<B: Backend> fmt::Debug for Watch<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

impl<B: Backend> Backward<B, 1> for Watched
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = Watch<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Watch { parameters, report } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let rows = parameters.iter().filter_map(|(id, parameter)| {
            let gradient = grads.get::<B>(parameter)?;
            let count = gradient.shape().num_elements();
            let row = B::float_reshape(gradient, Shape::new([count]));
            let row = DispatchTensor::from_backend(BackendTensor::<B>::Float(row));
            Some((*id, Tensor::<1>::from_dispatch(row)))
        });
        report(rows.collect());
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, gradient);
        }
    }
}
