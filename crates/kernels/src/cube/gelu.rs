//! The Gaussian error linear unit in training, composed of burn's operations, which fusion joins. Only
//! its input is kept.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Cube};
use burn::tensor::{DType, Tensor, activation};

/// The output for an `x` on a CubeCL device with autodiff. The input is kept in the format `kept`.
pub(super) fn in_training<const D: usize>(x: &Tensor<D>, kept: DType) -> Option<Tensor<D>> {
    let computed = x.dtype();
    let node = x.clone().try_into_primitive::<Autodiff<Cube, NoCheckpointing>>().ok()?.node();
    let x = x.clone().inner();
    let out = activation::gelu(x.clone()).try_into_primitive::<Cube>().ok()?;
    let state = GeluInput { x: x.cast(kept).try_into_primitive::<Cube>().ok()?, computed };
    let out = match Gelu::<D>.prepare::<NoCheckpointing>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    };
    Some(Tensor::from_primitive::<Autodiff<Cube, NoCheckpointing>>(out))
}

#[derive(Debug)]
struct Gelu<const D: usize>;

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct GeluInput {
    x: FloatTensor<Cube>,
    /// The format of the gradient.
    computed: DType,
}

impl<const D: usize> Backward<Cube, 1> for Gelu<D> {
    type State = GeluInput;

    fn backward(self, ops: Ops<GeluInput, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let GeluInput { x, computed } = ops.state;
        unary::<Cube, _>(ops.parents, ops.node, grads, |d_out| {
            let x = Tensor::<D>::from_primitive::<Cube>(x).cast(computed);
            let d_out = Tensor::<D>::from_primitive::<Cube>(d_out);
            let phi = (x.clone() * FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
            let density = (x.clone() * x.clone() * -0.5).exp() * (0.5 / PI).sqrt();
            let d_x = d_out * (x * density + phi);
            d_x.try_into_primitive::<Cube>().expect("the operations keep the backend")
        });
    }
}
