//! GELU in training.

use block_transformer_layers::gelu;
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{assert_close, list, random, runtimes};

#[test]
fn gelu_and_its_derivative_equal_those_of_flex() {
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    let flex = Device::flex();
    for shape in [[1, 1, 1], [3, 5, 7], [2, 33, 64]] {
        let (x, d_out) = (random(rng, shape, &flex), random(rng, shape, &flex));
        let both = |device: &Device| {
            let on = |x: &Tensor<3>| {
                let values = TensorData::new(list(x.clone()), shape);
                Tensor::<3>::from_data(values, &device.clone().autodiff())
            };
            let x = on(&x).require_grad();
            let out = gelu(x.clone());
            let gradients = (out.clone() * on(&d_out)).sum().backward();
            [list(out.inner()), list(x.grad(&gradients).unwrap())]
        };
        let theirs = both(&flex);
        for (runtime, device) in runtimes() {
            let [out, gradient] = both(&device);
            assert_close(&out, &theirs[0], &format!("{runtime} {shape:?}"));
            assert_close(&gradient, &theirs[1], &format!("{runtime} {shape:?}, gradient"));
        }
    }
}
