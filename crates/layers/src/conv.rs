//! A convolution whose kernel equals its stride, computed as a linear map.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::init::Init;
use crate::linear::project;

/// `Conv1d(d_in -> d_out, kernel = stride = k)`: maps each `k` consecutive vectors to one.
///
/// The weight `[k * d_in, d_out]` (position major) makes it one matrix product. Published files store
/// `[d_out, d_in, k]`.
#[derive(Module, Debug)]
pub struct BlockConv {
    /// `[kernel * d_in, d_out]`
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`
    pub bias: Param<Tensor<1>>,
    kernel: usize,
}

impl BlockConv {
    /// Weight N(0, `std`²), bias zero.
    pub fn new(init: &Init, d_in: usize, d_out: usize, kernel: usize, std: f64) -> Self {
        let weight = init.normal("weight", [kernel * d_in, d_out], std);
        Self { weight, bias: init.zeros("bias", [d_out]), kernel }
    }

    /// Maps each `kernel` consecutive vectors to one.
    ///
    /// # Shapes
    /// - input: `[batch, kernel * n, d_in]`
    /// - output: `[batch, n, d_out]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, time, width] = x.dims();
        let x = x.reshape([batch, time / self.kernel, self.kernel * width]);
        project(x, self.weight.val(), Some(self.bias.val()))
    }
}
