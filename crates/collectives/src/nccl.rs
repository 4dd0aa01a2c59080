//! Sums over the GPUs of a machine by their own transport.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use block_transformer_device::DeviceName;
use block_transformer_device::probe::{CudaParts, Fault, nccl_version};
use burn::tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor};

/// Tensors with fewer values are joined into one, because a sum of few values takes as long as its
/// start. Larger ones are summed in place.
const JOINED: usize = 1 << 18;

/// Why the sums of replicas do not go from GPU to GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCollectives {
    /// Only NVIDIA GPUs have collectives.
    #[error("only NVIDIA GPUs send sums to each other")]
    Kind,
    /// Replicas on one GPU.
    #[error("a GPU is named twice")]
    Twice,
    /// NCCL is missing.
    #[error("{0}; {remedy}", remedy = .0.remedy())]
    Nccl(Fault),
    /// A first sum failed.
    #[error("NCCL failed: {0}")]
    Failed(String),
}

/// Sums by the collectives of burn, which are those of NCCL on NVIDIA GPUs. Nothing is copied to the
/// host, and the host does not wait for a GPU after the first sum.
pub(crate) struct Nccl {
    /// By replica.
    devices: Vec<Device>,
    /// Whether a replica has checked its first gradients.
    checked: Vec<AtomicBool>,
}

impl Nccl {
    /// Connects `devices`, which have these `names`, and sums one value over them.
    ///
    /// # Errors
    /// When the devices are not different NVIDIA GPUs, NCCL cannot be loaded, or the sum fails.
    pub(crate) fn connect(names: &[DeviceName], devices: &[Device]) -> Result<Self, NoCollectives> {
        let devices: Vec<Device> = devices.iter().map(|device| device.clone().inner()).collect();
        let is_gpu = |(name, device): (&DeviceName, &Device)| {
            matches!(name, DeviceName::Cuda(_)) && name.open().is_ok_and(|opened| opened == *device)
        };
        if names.len() != devices.len() || !names.iter().zip(&devices).all(is_gpu) {
            return Err(NoCollectives::Kind);
        }
        if (1..names.len()).any(|i| names[..i].contains(&names[i])) {
            return Err(NoCollectives::Twice);
        }
        nccl_version(&CudaParts::of_system().nccl).map_err(NoCollectives::Nccl)?;
        let first = |device: &Device| {
            let sum = all_reduce(Tensor::<1>::ones([1], device), SUM, devices.clone());
            sum.resolve().try_into_data().map_err(|error| one_line(&error.to_string()))
        };
        // the GPUs join one after the other, and each waits for all
        thread::scope(|scope| {
            let each: Vec<_> =
                devices.iter().map(|device| scope.spawn(move || first(device))).collect();
            each.into_iter().try_for_each(|sum| match sum.join() {
                Ok(sum) => sum.map(drop).map_err(NoCollectives::Failed),
                Err(_) => Err(NoCollectives::Failed("the sum of one value stopped".into())),
            })
        })?;
        let checked = devices.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self { devices, checked })
    }

    /// Reads a value of each of `tensors` in the first step. A GPU without memory fails then if it ever
    /// does, and must not let the others begin a sum that it will not join.
    pub(crate) fn check(&self, rank: usize, tensors: &[Tensor<1>]) {
        if !self.checked[rank].swap(true, Ordering::Relaxed) {
            let values = tensors.iter().map(|tensor| tensor.clone().narrow(0, 0, 1)).collect();
            let _ = Tensor::cat(values, 0).into_data();
        }
    }

    /// The sums. All replicas must have come, with the same `lengths`: inside NCCL they would wait
    /// forever for one that left.
    pub(crate) fn sum(&self, tensors: Vec<Tensor<1>>, lengths: &[usize]) -> Vec<Tensor<1>> {
        let (small, large): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|tensor| tensor.dims()[0] < JOINED);
        let joined = (!small.is_empty()).then(|| Tensor::cat(small, 0));
        let sum = |tensor| all_reduce(tensor, SUM, self.devices.clone());
        // all sums begin before the first one is waited for
        let joined = joined.map(sum);
        let large: Vec<CollectiveTensor<1>> = large.into_iter().map(sum).collect();
        let joined = joined.map(CollectiveTensor::resolve);
        let mut large = large.into_iter().map(CollectiveTensor::resolve);
        let mut start = 0;
        let of = |&length: &usize| {
            if length >= JOINED {
                return large.next();
            }
            let sum = joined.clone()?.narrow(0, start, length);
            start += length;
            Some(sum)
        };
        lengths.iter().filter_map(of).collect()
    }
}

const SUM: ReduceOperation = ReduceOperation::Sum;

/// The causes in a message of burn, without the backtrace.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).take_while(|line| !line.starts_with("Backtrace"));
    lines.filter(|line| *line != "Caused by:").collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_without_collectives_are_told_apart_before_anything_is_loaded() {
        let flex = vec![Device::flex(); 2];
        let error = |names: &[DeviceName]| Nccl::connect(names, &flex).err();
        assert_eq!(error(&[DeviceName::Flex; 2]), Some(NoCollectives::Kind));
        // the names of other devices than those that compute
        assert_eq!(error(&[DeviceName::Cuda(0), DeviceName::Cuda(1)]), Some(NoCollectives::Kind));
        assert_eq!(error(&[DeviceName::Flex]), Some(NoCollectives::Kind));
    }

    #[test]
    fn a_failure_is_told_in_one_line() {
        let message = "An error happened\nCaused by:\n  NCCL failed: 2\nBacktrace:\nmain\n";
        assert_eq!(one_line(message), "An error happened: NCCL failed: 2");
    }
}
