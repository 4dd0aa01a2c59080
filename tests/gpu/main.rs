//! The kernels of the CubeCL backends on runtimes that need no GPU, against burn-flex. `.ci/gpu`
//! prepares the runtimes and runs these tests.

#![allow(clippy::print_stderr, reason = "a skipped runtime says so")]

use block_transformer_device::DeviceName;
use block_transformer_layers::neox::{NeoXConfig, NeoXStack};
use block_transformer_layers::{Init, Positions, embed};
use burn::module::Param;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const HEADS: usize = 2;

/// Both sides sum in f32, in different orders.
const TOLERANCE: f32 = 2e-5;

/// The runtimes of this build that exist on this machine.
fn runtimes() -> Vec<(DeviceName, Device)> {
    let vulkan = std::env::var_os("VK_ICD_FILENAMES").is_some();
    if !vulkan {
        eprintln!("wgpu:cpu is skipped: VK_ICD_FILENAMES names no Vulkan driver in software");
    }
    let names = [DeviceName::CubeclCpu, DeviceName::WgpuCpu];
    let exists = |name: &DeviceName| vulkan || *name != DeviceName::WgpuCpu;
    names.into_iter().filter(exists).map(|name| (name, name.open().unwrap())).collect()
}

fn random<const D: usize>(rng: &mut ChaCha8Rng, shape: [usize; D], device: &Device) -> Tensor<D> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-3.0..3.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn list<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn assert_close(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let scale = theirs.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() < TOLERANCE * scale, "{what}, element {i}: {a} {b}");
    }
}

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

/// The outputs of a few steps over caches of 4 slots. Sequences start, end and overwrite others.
fn cached(group: usize, head_dim: usize, device: &Device) -> Vec<Vec<f32>> {
    let config = NeoXConfig::new(HEADS * head_dim, 2, HEADS);
    let stack = NeoXStack::new(&config, &Init::new(7, device));
    let mut cache = stack.new_cache(4, 200, device);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    // slots, starts, new positions, kept positions
    let steps: [(&[usize], &[usize], usize, usize); 5] = [
        (&[0, 1, 2, 3], &[0, 0, 0, 0], 2 * group, 2 * group),
        (&[2, 0], &[2 * group, 2 * group], group, group),
        (&[3], &[2 * group], 70 * group, group), // more than one part
        (&[1, 2], &[2 * group, 3 * group], 3 * group, 1),
        (&[3, 0, 1], &[72 * group, 0, 5 * group], group, group), // slot 0 begins anew
    ];
    let mut outputs = Vec::new();
    for (slots, starts, time, keep) in steps {
        let x = random(&mut rng, [slots.len(), time, config.hidden_size], device);
        let at = Positions::Slots { slots: slots.to_vec(), starts: starts.to_vec() };
        let out = stack.append(x, &stack.rotary(&at, time), &at, group, keep, &mut cache);
        outputs.push(list(out));
    }
    outputs
}

#[test]
fn attention_over_a_cache_equals_that_of_flex() {
    for (name, device) in runtimes() {
        for (group, head_dim) in [(1, 16), (2, 24)] {
            let ours = cached(group, head_dim, &device);
            let theirs = cached(group, head_dim, &Device::flex());
            for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert_close(ours, theirs, &format!("{name}, group {group}, step {step}"));
            }
        }
    }
}
