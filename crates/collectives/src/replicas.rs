//! The replicas of one process: threads, each with a device.

use std::panic::resume_unwind;
use std::sync::Arc;

use block_transformer_device::DeviceName;
use burn::tensor::{Device, Tensor};

use crate::meeting::Meeting;
use crate::nccl::{Nccl, NoCollectives};
use crate::values::{Values, Wire, add};
use crate::{Collective, CollectiveError};

/// One of several threads of a process. When it is dropped, it leaves: what the others wait for then
/// fails with [`CollectiveError::Stopped`].
pub struct Replica {
    rank: usize,
    shared: Arc<Shared>,
}

/// What the replicas of a process share.
struct Shared {
    size: usize,
    /// `None`: sums go through the memory of the process.
    nccl: Option<Nccl>,
    sums: Meeting<Vec<f32>, Arc<[f32]>>,
    lengths: Meeting<Vec<usize>, ()>,
    messages: Meeting<Vec<u8>, Arc<[Vec<u8>]>>,
}

/// The replicas on `devices`, which have these `names`, and why their sums go through the memory of the
/// process; `None` if the collectives of the devices sum.
pub fn replicas(names: &[DeviceName], devices: &[Device]) -> (Vec<Replica>, Option<NoCollectives>) {
    if devices.len() == 1 {
        return (Replica::on_host(1), Some(NoCollectives::Kind));
    }
    match Nccl::connect(names, devices) {
        Ok(nccl) => (Replica::all(devices.len(), Some(nccl)), None),
        Err(reason) => (Replica::on_host(devices.len()), Some(reason)),
    }
}

impl Replica {
    /// `size` replicas on devices of any kind. Each copies its values to the host, and the sums back.
    pub fn on_host(size: usize) -> Vec<Self> {
        Self::all(size, None)
    }

    fn all(size: usize, nccl: Option<Nccl>) -> Vec<Self> {
        let shared = Arc::new(Shared {
            size,
            nccl,
            sums: Meeting::new(size, sum),
            lengths: Meeting::new(size, same_lengths),
            messages: Meeting::new(size, |parts| Ok(parts.into())),
        });
        (0..size).map(|rank| Self { rank, shared: shared.clone() }).collect()
    }

    /// Runs `run` on `size` replicas, each in a thread of its own, and returns their results by rank.
    ///
    /// # Panics
    /// When `run` panics.
    pub fn each<T: Send>(size: usize, run: impl Fn(&Self) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let run = &run;
            let start = |replica: Self| scope.spawn(move || run(&replica));
            let threads: Vec<_> = Self::on_host(size).into_iter().map(start).collect();
            let result = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            result.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic))).collect()
        })
    }

    /// Leaves: the sums and messages that need this replica fail from now on.
    pub fn leave(&self) {
        self.shared.sums.leave(self.rank);
        self.shared.lengths.leave(self.rank);
        self.shared.messages.leave(self.rank);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Collective for Replica {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn sum(&self, tensors: Vec<Tensor<1>>, _: Wire) -> Result<Vec<Tensor<1>>, CollectiveError> {
        if let Some(nccl) = &self.shared.nccl {
            let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.dims()[0]).collect();
            nccl.check(self.rank, &tensors);
            self.shared.lengths.meet(self.rank, lengths.clone())?;
            return Ok(nccl.sum(tensors, &lengths));
        }
        let Some(mut part) = Values::of(tensors) else { return Ok(Vec::new()) };
        let sum = self.shared.sums.meet(self.rank, std::mem::take(&mut part.values))?;
        Ok(part.tensors(&sum))
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(self.shared.messages.meet(self.rank, bytes)?.to_vec())
    }

    fn abort(&self, status: u8) -> ! {
        std::process::exit(i32::from(status))
    }
}

/// The sum of `parts`, in their order.
fn sum(parts: Vec<Vec<f32>>) -> Result<Arc<[f32]>, CollectiveError> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_default();
    for part in parts {
        if part.len() != sum.len() {
            return Err(CollectiveError::Lengths);
        }
        add(&mut sum, &part);
    }
    Ok(sum.into())
}

/// Returns an error if the replicas have tensors of different lengths.
fn same_lengths(lengths: Vec<Vec<usize>>) -> Result<(), CollectiveError> {
    if lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        Ok(())
    } else {
        Err(CollectiveError::Lengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.to_data().iter::<f32>().collect()
    }

    #[test]
    fn every_replica_gets_the_sums_and_the_messages_of_every_round() {
        std::thread::scope(|scope| {
            for replica in Replica::on_host(3) {
                scope.spawn(move || {
                    let rank = replica.rank();
                    for round in 0..50 {
                        let mine = [rank as f32, round as f32];
                        let device = Device::flex();
                        let tensors = vec![
                            Tensor::from_data([mine[0]], &device),
                            Tensor::from_data(mine, &device),
                        ];
                        let sums = replica.sum(tensors, Wire::F32).unwrap();
                        assert_eq!(values(&sums[0]), [3.0]);
                        assert_eq!(values(&sums[1]), [3.0, 3.0 * round as f32]);
                        let all = replica.gather(vec![rank as u8; rank]).unwrap();
                        assert_eq!(all, [vec![], vec![1], vec![2, 2]]);
                        assert_eq!(replica.broadcast(vec![7 + rank as u8]).unwrap(), [7]);
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_a_replica_that_left_or_has_other_gradients() {
        let one = || vec![Tensor::<1>::from_data([1.0], &Device::flex())];
        let two = || vec![Tensor::<1>::from_data([1.0], &Device::flex()); 2];
        let mut replicas = Replica::on_host(2);
        let (second, first) = (replicas.pop().unwrap(), replicas.pop().unwrap());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| first.sum(one(), Wire::F32).unwrap_err());
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop(second);
            assert_eq!(waits.join().unwrap(), CollectiveError::Stopped(1));
        });
        assert_eq!(first.sum(one(), Wire::F32).unwrap_err(), CollectiveError::Stopped(1));
        assert_eq!(first.barrier(), Err(CollectiveError::Stopped(1)));

        let mut replicas = Replica::on_host(2);
        let (second, first) = (replicas.pop().unwrap(), replicas.pop().unwrap());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| second.sum(two(), Wire::F32).unwrap_err());
            assert_eq!(first.sum(one(), Wire::F32).unwrap_err(), CollectiveError::Lengths);
            assert_eq!(other.join().unwrap(), CollectiveError::Lengths);
        });
    }

    #[test]
    fn replicas_with_other_gradients_begin_no_sum() {
        assert_eq!(same_lengths(vec![vec![2, 3], vec![2, 3]]), Ok(()));
        assert_eq!(same_lengths(vec![vec![2, 3], vec![3, 2]]), Err(CollectiveError::Lengths));
    }
}
