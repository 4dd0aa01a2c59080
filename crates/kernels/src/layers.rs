//! What happens around a whole layer in training: activations that are computed again, and early gradients.

use std::sync::Arc;

use burn::module::{Module, ParamId};
use burn::tensor::Tensor;

/// Runs `forward` on `layer`, `x` and `others` so that the backward pass keeps these inputs only, and
/// computes all other activations of the layer again. The gradients have the bits of those without
/// recomputation, if `forward` gives the same bits each time.
///
/// `None` where there is nothing to differentiate, on other devices than flex and CubeCL, and for a
/// layer with more than about 20 parameters.
///
/// # Shapes
/// - `x`, output: `[rows, time, width]`
pub fn recomputed<M, F>(
    layer: &M,
    x: &Tensor<3>,
    others: &[Tensor<4>],
    forward: F,
) -> Option<Tensor<3>>
where
    M: Module + Sync + 'static,
    F: Fn(&M, Tensor<3>, Vec<Tensor<4>>) -> Tensor<3> + Send + Sync + 'static,
{
    #[cfg(any(feature = "cube", feature = "flex"))]
    return crate::recompute::recomputed(layer, x, others, forward);
    #[cfg(not(any(feature = "cube", feature = "flex")))]
    {
        let _ = (layer, x, others, forward);
        None
    }
}

/// Takes the gradients of a layer's parameters during the backward pass, each as a row of values.
pub type Report = Arc<dyn Fn(Vec<(ParamId, Tensor<1>)>) + Send + Sync>;

/// `x`, the input of `layer`. As soon as the backward pass has computed the gradients of the layer's
/// parameters, `report` gets them. A parameter that is also used below the layer has its gradient in part only.
///
/// `None` where there is nothing to differentiate, and on other devices than flex and CubeCL.
///
/// # Shapes
/// - `x`, output: `[rows, time, width]`
pub fn watched<M: Module>(layer: &M, x: &Tensor<3>, report: &Report) -> Option<Tensor<3>> {
    #[cfg(any(feature = "cube", feature = "flex"))]
    return crate::watch::watched(layer, x, report);
    #[cfg(not(any(feature = "cube", feature = "flex")))]
    {
        let _ = (layer, x, report);
        None
    }
}
