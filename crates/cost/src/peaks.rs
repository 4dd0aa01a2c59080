//! The measured peaks of a device.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use block_transformer_device::{DeviceName, machine_memory};
use block_transformer_family::Precision;
use burn::tensor::{Device, Distribution, ExecutionError, Tensor};
use rayon::prelude::*;
use serde::Serialize;

use crate::machine::Machine;

/// Rows and columns of the matrices that are multiplied.
const SIZE: usize = 1024;
/// Bytes that are read, or on a GPU read and written.
const BYTES: usize = 512 << 20;
/// Repetitions of each measurement; the fastest one counts.
const REPETITIONS: usize = 6;

/// The measured peaks of a device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peaks {
    /// FLOP/s of the product of two square matrices.
    pub flops: f64,
    /// Bytes per second: read from memory on a processor, read or written on a GPU.
    pub bandwidth: f64,
}

impl Peaks {
    /// Measures the peaks of `device`, which must be the device that `name` names.
    ///
    /// # Errors
    /// When the device fails.
    pub fn measure(name: DeviceName, device: &Device) -> Result<Self, ExecutionError> {
        let a = Tensor::<2>::random([SIZE, SIZE], Distribution::Default, device);
        let seconds = fastest(|| {
            let product = a.clone().matmul(a.clone());
            device.sync()?;
            black_box(product);
            Ok(())
        })?;
        let flops = 2.0 * (SIZE as f64).powi(3) / seconds;
        let seconds = if name.is_processor() {
            let words = vec![1u64; BYTES / size_of::<u64>()];
            // integers can be added in any order, so memory is the only limit
            fastest(|| {
                let parts = words.par_chunks(1 << 16);
                black_box(parts.map(|part| part.iter().sum::<u64>()).sum::<u64>());
                Ok(())
            })?
        } else {
            // half of the bytes are read, half are written
            let x = Tensor::<1>::zeros([BYTES / 2 / size_of::<f32>()], device);
            fastest(|| {
                let sum = x.clone() + 1.0;
                device.sync()?;
                black_box(sum);
                Ok(())
            })?
        };
        Ok(Self { flops, bandwidth: BYTES as f64 / seconds })
    }

    /// Returns the higher value of each peak.
    pub fn max(self, other: Self) -> Self {
        let bandwidth = self.bandwidth.max(other.bandwidth);
        Self { flops: self.flops.max(other.flops), bandwidth }
    }

    /// Returns the description of this machine in the cost model, for models stored in `precision`.
    pub fn machine(self, precision: Precision) -> Machine {
        Machine {
            name: "this machine".into(),
            flops: self.flops,
            bandwidth: self.bandwidth,
            memory: machine_memory().map_or(0.0, |bytes| bytes as f64),
            launch: 0.0,
            precision,
        }
    }
}

impl fmt::Display for Peaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [gflops, gbytes] = [self.flops, self.bandwidth].map(|peak| peak / 1e9);
        write!(f, "matmul {gflops:.0} GFLOP/s, memory {gbytes:.1} GB/s")
    }
}

/// Returns the seconds of the fastest of several runs.
fn fastest(mut run: impl FnMut() -> Result<(), ExecutionError>) -> Result<f64, ExecutionError> {
    let mut fastest = f64::MAX;
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        run()?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    Ok(fastest)
}
