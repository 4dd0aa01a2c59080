//! What the machine can do at most.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use block_transformer_cost::{Machine, Number};
use burn::tensor::{Device, Distribution, Tensor};
use rayon::prelude::*;
use serde::Serialize;

use crate::device::DeviceName;
use crate::memory;

/// Width of the product.
const N: usize = 1024;
/// Bytes read.
const BYTES: usize = 512 << 20;
/// Times each is tried.
const TRIES: usize = 6;

/// Measured peaks.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peaks {
    /// Of a product of two square matrices, FLOP/s.
    pub flops: f64,
    /// Of reading memory, bytes a second.
    pub bandwidth: f64,
}

impl Peaks {
    /// The best of a few tries of each.
    ///
    /// # Errors
    /// When the device fails.
    pub fn measure(name: DeviceName, device: &Device) -> Result<Self> {
        let a = Tensor::<2>::random([N, N], Distribution::Default, device);
        let seconds = best(|| {
            let product = a.clone().matmul(a.clone());
            device.sync()?;
            black_box(product);
            Ok(())
        })?;
        let flops = 2.0 * (N as f64).powi(3) / seconds;
        let seconds = if name.is_cpu() {
            let numbers = vec![1u64; BYTES / size_of::<u64>()];
            // whole numbers may be summed in any order, so as fast as they come
            best(|| {
                let parts = numbers.par_chunks(1 << 16);
                black_box(parts.map(|part| part.iter().sum::<u64>()).sum::<u64>());
                Ok(())
            })?
        } else {
            // half is read, half written
            let x = Tensor::<1>::zeros([BYTES / 2 / size_of::<f32>()], device);
            best(|| {
                let more = x.clone() + 1.0;
                device.sync()?;
                black_box(more);
                Ok(())
            })?
        };
        Ok(Self { flops, bandwidth: BYTES as f64 / seconds })
    }

    /// The higher of two measurements, of each.
    pub fn or(self, other: Self) -> Self {
        let bandwidth = self.bandwidth.max(other.bandwidth);
        Self { flops: self.flops.max(other.flops), bandwidth }
    }

    /// A machine with these peaks, and weights of `weights`.
    pub fn machine(self, weights: Number) -> Machine {
        Machine {
            name: "this machine".into(),
            flops: self.flops,
            bandwidth: self.bandwidth,
            memory: memory::of_machine().map_or(0.0, |bytes| bytes as f64),
            weights,
            numbers: Number::F32,
        }
    }
}

impl std::fmt::Display for Peaks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [gflops, gbytes] = [self.flops, self.bandwidth].map(|peak| peak / 1e9);
        write!(f, "matmul {gflops:.0} GFLOP/s, memory {gbytes:.1} GB/s")
    }
}

/// Seconds of the fastest try.
fn best(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::MAX;
    for _ in 0..TRIES {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
