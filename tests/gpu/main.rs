//! The kernels of the CubeCL backends on runtimes that need no GPU, against burn-flex. `.ci/gpu`
//! prepares the runtimes and runs these tests.

#![allow(clippy::print_stderr, reason = "a skipped runtime says so")]

mod attention;
mod choices;
mod embedding;
mod engine;
mod gelu;
mod memory;
mod optimizer;

use block_transformer_device::DeviceName;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

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
