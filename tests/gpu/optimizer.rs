//! Parts of a training step: layer norm with its derivatives, sums of squares, AdamW.

use block_transformer_kernels::{AdamWStep, adamw, layer_norm, square_sum};
use burn::optim::{AdamWConfig, Optimizer};
use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{assert_close, list, random, runtimes};

/// The output, and the gradients of the input and of both parameters.
fn norm([rows, width]: [usize; 2], device: &Device) -> [Vec<f32>; 4] {
    let device = device.clone().autodiff();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let x = random(&mut rng, [rows, width], &device).require_grad();
    let gamma = random(&mut rng, [width], &device).require_grad();
    let beta = random(&mut rng, [width], &device).require_grad();
    let factor = random(&mut rng, [rows, width], &device);
    let out = layer_norm(&x, &gamma, &beta, 1e-5).unwrap_or_else(|| {
        let (variance, mean) = x.clone().var_mean_bias(1);
        let normal = (x.clone() - mean) / (variance + 1e-5).sqrt();
        normal * gamma.clone().unsqueeze() + beta.clone().unsqueeze()
    });
    let gradients = (out.clone() * factor).sum().backward();
    [
        list(out.inner()),
        list(x.grad(&gradients).unwrap()),
        list(gamma.grad(&gradients).unwrap()),
        list(beta.grad(&gradients).unwrap()),
    ]
}

#[test]
fn layer_norm_and_its_gradients_equal_the_formula() {
    for (name, device) in runtimes() {
        for shape in [[1, 5], [3, 64], [130, 33], [2, 700]] {
            let (ours, theirs) = (norm(shape, &device), norm(shape, &Device::flex()));
            for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert_close(ours, theirs, &format!("{name}, {shape:?}, {i}"));
            }
        }
    }
}

#[test]
fn sums_of_squares_add_all_tensors() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for (name, device) in runtimes() {
        // more than one launch, and tensors of more than one part
        for count in [1, 2, 8, 11] {
            let tensors: Vec<Tensor<2>> = (0..count)
                .map(|i| random(&mut rng, [[7, 1], [300, 257]][i % 2], &device))
                .collect();
            let rows: Vec<Tensor<1>> = tensors.iter().map(|x| x.clone().flatten(0, 1)).collect();
            let found = f64::from(list(square_sum(&rows).unwrap())[0]);
            let squares = |x: Tensor<2>| list(x).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            let expected: f64 = tensors.into_iter().map(squares).sum();
            assert!((found / expected - 1.0).abs() < 1e-5, "{name}, {count}: {found} {expected}");
        }
    }
}

#[test]
fn steps_of_adamw_equal_those_of_burn_and_can_be_skipped() {
    let (lr, decay, factor) = (0.01, 0.1, 0.5);
    let burns = AdamWConfig::new().with_beta_2(0.95).with_weight_decay(decay as f32).build();
    for (name, device) in runtimes() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut weights = random(&mut rng, [9, 31], &device);
        let (mut theirs, mut state) = (weights.clone(), None);
        let mut moments = [weights.zeros_like(), weights.zeros_like()];
        for step in 1..=3 {
            let gradient = random(&mut rng, [9, 31], &device);
            (theirs, state) = burns.step(lr, theirs, gradient.clone() * factor, state);
            for skip in [1.0, 0.0] {
                let control = Tensor::<1>::from_floats([factor as f32, skip], &device);
                let constants = AdamWStep {
                    beta_1: 0.9,
                    beta_2: 0.95,
                    correction_1: 1.0 - 0.9_f32.powi(step),
                    correction_2: 1.0 - 0.95_f32.powi(step),
                    epsilon: 1e-5,
                    keep: (1.0 - lr * decay) as f32,
                    lr: lr as f32,
                    is_first: step == 1,
                };
                let before = list(weights.clone());
                let [first, second] = moments;
                let [new, first, second] =
                    adamw([weights, first, second], &gradient, &control, constants).unwrap();
                (weights, moments) = (new, [first, second]);
                assert_eq!(skip == 1.0, before == list(weights.clone()), "{name}, step {step}");
            }
            assert_close(&list(weights.clone()), &list(theirs.clone()), &name.to_string());
            let state = state.as_ref().unwrap();
            let [first, second] = moments.clone();
            assert_close(&list(first), &list(state.momentum.moment_1.clone()), "first moment");
            assert_close(&list(second), &list(state.momentum.moment_2.clone()), "second moment");
        }
    }
}
