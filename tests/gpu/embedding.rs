//! The gradient of an embedding table.

use block_transformer_layers::embed;
use burn::module::Param;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{assert_close, list, random, runtimes};

/// The gradient of an embedding table, for random ids that repeat.
fn embedding_gradient(entries: usize, count: usize, width: usize, device: &Device) -> Vec<f32> {
    let device = device.clone().autodiff();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let weight = random(&mut rng, [entries, width], &device).require_grad();
    let ids: Vec<i64> = (0..count).map(|_| rng.random_range(0..entries as i64)).collect();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &device);
    let table = Embedding { weight: Param::from_tensor(weight.clone()) };
    let rows = embed(&table, ids.reshape([1, count]));
    let factor = random(&mut rng, [1, count, width], &device);
    let gradients = (rows * factor).sum().backward();
    list(table.weight.val().grad(&gradients).unwrap())
}

#[test]
fn the_gradient_of_an_embedding_adds_the_rows_of_each_id() {
    for (name, device) in runtimes() {
        for (entries, count, width) in [(1, 9, 3), (5, 1, 8), (7, 100, 5), (300, 257, 33)] {
            let ours = embedding_gradient(entries, count, width, &device);
            let theirs = embedding_gradient(entries, count, width, &Device::flex());
            assert_close(&ours, &theirs, &format!("{name}, {entries} {count} {width}"));
            // the order of the sum is fixed
            assert_eq!(ours, embedding_gradient(entries, count, width, &device), "{name}");
        }
    }
}
