//! Comparison of kernels and their derivatives with burn's operations.

use burn::tensor::{Device, Distribution, Tensor};

use crate::instruction_set::forced::for_each_set;

/// An operation on matrices.
pub(super) type Operation<'a> = &'a (dyn Fn(&[Tensor<2>]) -> Tensor<2> + Sync);

/// Random matrices of `shapes`.
pub(super) fn random(shapes: &[[usize; 2]]) -> Vec<Tensor<2>> {
    let device = Device::flex();
    let normal = Distribution::Normal(0.1, 1.0);
    shapes.iter().map(|&shape| Tensor::random(shape, normal, &device)).collect()
}

/// The elements of the output, and of the gradients of all inputs.
fn run(inputs: &[Tensor<2>], operation: Operation) -> Vec<Vec<f32>> {
    let list = |x: Tensor<2>| x.into_data().iter::<f32>().collect();
    let tracked = |x: &Tensor<2>| Tensor::from_inner(x.clone()).require_grad();
    let inputs: Vec<Tensor<2>> = inputs.iter().map(tracked).collect();
    let out = operation(&inputs);
    let [rows, columns] = out.dims();
    // every element counts differently
    let count = (rows * columns) as i64;
    let weights = Tensor::<1, burn::tensor::Int>::arange(0..count, &out.device()).float();
    let weights = (weights * 0.37).sin().reshape([rows, columns]);
    let gradients = (out.clone() * weights).sum().backward();
    let of_inputs = inputs.iter().map(|x| list(x.grad(&gradients).unwrap()));
    std::iter::once(list(out.inner())).chain(of_inputs).collect()
}

/// Checks on each instruction set that `kernel` has the values and gradients of `composed` within `tolerance` of
/// the largest, and the same bits with any number of threads.
pub(super) fn check(inputs: &[Tensor<2>], kernel: Operation, composed: Operation, tolerance: f32) {
    for_each_set(|set| {
        let expected = run(inputs, composed);
        let threads = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(inputs, kernel))
        });
        let [found, others @ ..] = &threads;
        for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            for (found, expected) in found.iter().zip(expected) {
                let error = (found - expected).abs();
                assert!(error <= tolerance * largest, "{set:?} {which}: {found} {expected}");
            }
        }
        let bits =
            |all: &[Vec<f32>]| -> Vec<u32> { all.iter().flatten().map(|x| x.to_bits()).collect() };
        assert!(others.iter().all(|other| bits(other) == bits(found)), "{set:?}: threads");
    });
}
