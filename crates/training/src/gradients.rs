//! Gradients of a whole model: sum over micro-batches, norm, scale.

use block_transformer_layers::{has_adamw, square_sum};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

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
    let mut all = All { gradients, tensors: Vec::new() };
    model.visit(&mut all);
    if let Some(sum) = square_sum(&all.tensors) {
        return Some(sum);
    }
    let mut squares = Squares { gradients, of_each: Vec::new() };
    model.visit(&mut squares);
    let sums: Vec<Tensor<1>> = squares.of_each.into_par_iter().map(|sum| sum()).collect();
    sums.into_iter().reduce(|sum, square| sum + square)
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

/// Multiplies every gradient by `factor`, `[1]`.
pub(crate) fn scale_by<M: Module>(
    model: &M,
    gradients: GradientsParams,
    factor: &Tensor<1>,
) -> GradientsParams {
    let mut scale = ScaleBy { gradients, factor };
    model.visit(&mut scale);
    scale.gradients
}

/// The gradients of all parameters in the order of the model, each as a row of values.
pub(crate) struct Flat {
    pub tensors: Vec<Tensor<1>>,
    /// Which parameters have a gradient; the others have zeros.
    pub has_gradient: Vec<bool>,
}

/// Flattens `gradients`. `None` are zeros for all parameters.
pub(crate) fn flatten<M: Module>(model: &M, gradients: Option<GradientsParams>) -> Flat {
    let empty = gradients.is_none();
    let mut flatten = Flatten {
        gradients: gradients.unwrap_or_default(),
        empty,
        flat: Flat { tensors: Vec::new(), has_gradient: Vec::new() },
    };
    model.visit(&mut flatten);
    flatten.flat
}

/// The gradients of the parameters with `has_gradient` from `tensors`, which has those of all
/// parameters.
pub(crate) fn unflatten<M: Module>(
    model: &M,
    tensors: impl Iterator<Item = Tensor<1>>,
    has_gradient: &[bool],
) -> GradientsParams {
    let of = tensors.zip(has_gradient.iter().copied());
    let mut unflatten = Unflatten { of, gradients: GradientsParams::new() };
    model.visit(&mut unflatten);
    unflatten.gradients
}

struct Flatten {
    gradients: GradientsParams,
    empty: bool,
    flat: Flat,
}

impl ModuleVisitor for Flatten {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self.gradients.remove::<D>(param.id);
        self.flat.has_gradient.push(gradient.is_some() || self.empty);
        let gradient = gradient.unwrap_or_else(|| param.val().inner().zeros_like());
        let count = gradient.shape().num_elements();
        self.flat.tensors.push(gradient.reshape([count]));
    }
}

struct Unflatten<I> {
    of: I,
    gradients: GradientsParams,
}

impl<I: Iterator<Item = (Tensor<1>, bool)>> ModuleVisitor for Unflatten<I> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some((tensor, true)) = self.of.next() {
            self.gradients.register(param.id, tensor.reshape(param.dims()));
        }
    }
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

/// All gradients as rows of values.
struct All<'a> {
    gradients: &'a GradientsParams,
    tensors: Vec<Tensor<1>>,
}

impl ModuleVisitor for All<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // elsewhere no kernel takes the rows, and making them could copy
        if let Some(gradient) = self.gradients.get::<D>(param.id).filter(|x| has_adamw(&x.device()))
        {
            let count = gradient.shape().num_elements();
            self.tensors.push(gradient.reshape([count]));
        }
    }
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    /// The sum of each parameter. A sum takes one thread, but several parameters go on together.
    of_each: Vec<Box<dyn FnOnce() -> Tensor<1> + Send>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.of_each.push(Box::new(move || square_sum_in_parts(gradient)));
        }
    }
}

/// From this number of elements on, burn-flex sums in an order that depends on its threads, so that two runs
/// could differ.
const LARGE: usize = 1 << 22;
/// Elements of a part of a large sum.
const PART: usize = 1 << 20;

/// The sum of all elements, in a fixed order.
fn in_parts<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.shape().num_elements();
    let x = x.reshape([count]);
    let part = |start: usize| x.clone().narrow(0, start, PART.min(count - start)).sum();
    let parts: Vec<Tensor<1>> =
        (0..count).step_by(PART).collect::<Vec<_>>().into_par_iter().map(part).collect();
    parts.into_iter().reduce(|sum, part| sum + part).expect("there are elements")
}

/// The sum of the squares of all elements, `[1]` in f32, in an order that does not depend on the threads.
pub(crate) fn square_sum_in_parts<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let squares = x.cast(DType::F32).square();
    if squares.shape().num_elements() < LARGE { squares.sum() } else { in_parts(squares) }
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

struct ScaleBy<'a> {
    gradients: GradientsParams,
    factor: &'a Tensor<1>,
}

impl ModuleVisitor for ScaleBy<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let factor = self.factor.clone().reshape([1; D]).cast(gradient.dtype());
            self.gradients.register(param.id, gradient * factor);
        }
    }
}
