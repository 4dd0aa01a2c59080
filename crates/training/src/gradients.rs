//! Gradients of a whole model: sum over micro-batches, norm, scale.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

/// Adds `more` to `sum`, parameter by parameter. `None` is an empty sum.
pub(crate) fn add<M: Module>(
    model: &M,
    sum: Option<GradientsParams>,
    more: GradientsParams,
) -> GradientsParams {
    match sum {
        None => more,
        Some(sum) => {
            let mut add = Add { sum, more };
            model.visit(&mut add);
            add.sum
        }
    }
}

/// Sum of the squares of all gradients, `[1]` in f32 on the device; `None` without gradients.
pub(crate) fn sum_of_squares<M: Module>(
    model: &M,
    gradients: &GradientsParams,
) -> Option<Tensor<1>> {
    let mut squares = Squares { gradients, sum: None };
    model.visit(&mut squares);
    squares.sum
}

/// Multiplies every gradient by `factor`.
pub(crate) fn scale<M: Module>(
    model: &M,
    gradients: GradientsParams,
    factor: f64,
) -> GradientsParams {
    let mut scale = Scale { gradients, factor };
    model.visit(&mut scale);
    scale.gradients
}

struct Add {
    sum: GradientsParams,
    more: GradientsParams,
}

impl ModuleVisitor for Add {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(more) = self.more.remove::<D>(param.id) {
            let sum = match self.sum.remove::<D>(param.id) {
                Some(sum) => sum + more,
                None => more,
            };
            self.sum.register(param.id, sum);
        }
    }
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square = gradient.cast(DType::F32).square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}
