//! Sums over the replicas of a data-parallel run.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::meeting::Meeting;

/// A sum over replicas that cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReduceError {
    /// A replica ended, and the others would wait for it forever.
    #[error("replica {0} of the run stopped")]
    Stopped(usize),
    /// Replicas called with different numbers of values.
    #[error("the replicas of the run have different numbers of gradients")]
    Lengths,
}

/// Sums over the replicas of a run. An implementation is a transport: the memory of the process, the
/// collectives of GPUs, or a network.
pub trait Reduce: Send + Sync {
    /// Returns the sum of `tensors` over all replicas, tensor by tensor, on the device of `tensors`.
    /// The sums have the same bits in every replica.
    ///
    /// Every replica calls this once per step, from a thread of its own, with its number `rank`
    /// (counted from 0) and with tensors of the same lengths in the same order.
    ///
    /// # Errors
    /// When a replica has left, or the lengths differ.
    fn all_reduce(
        &self,
        rank: usize,
        tensors: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ReduceError>;

    /// Takes replica `rank` out: the sums that need it return an error from now on.
    fn leave(&self, rank: usize);
}

/// Sums in the memory of the process, for devices of any kind. Each replica copies its values to the
/// host and the sums back.
pub struct HostReduce {
    meeting: Meeting<Vec<f32>, Arc<[f32]>>,
}

impl HostReduce {
    /// Creates sums over `ranks` replicas.
    pub fn new(ranks: usize) -> Self {
        Self { meeting: Meeting::new(ranks, sum) }
    }
}

impl Reduce for HostReduce {
    fn all_reduce(
        &self,
        rank: usize,
        tensors: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ReduceError> {
        let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.dims()[0]).collect();
        let Some(device) = tensors.first().map(Tensor::device) else { return Ok(tensors) };
        let part = Tensor::cat(tensors, 0).into_data().iter::<f32>().collect();
        let sum = self.meeting.meet(rank, part)?;
        let mut rest = &sum[..];
        let tensor = |length| {
            let (values, after) = rest.split_at(length);
            rest = after;
            Tensor::from_data(values, &device)
        };
        Ok(lengths.into_iter().map(tensor).collect())
    }

    fn leave(&self, rank: usize) {
        self.meeting.leave(rank);
    }
}

/// The sum of `parts`, in their order.
fn sum(parts: Vec<Vec<f32>>) -> Result<Arc<[f32]>, ReduceError> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_default();
    for part in parts {
        if part.len() != sum.len() {
            return Err(ReduceError::Lengths);
        }
        sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    Ok(sum.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.to_data().iter::<f32>().collect()
    }

    #[test]
    fn every_replica_gets_the_sums_of_every_round() {
        let reduce = HostReduce::new(3);
        std::thread::scope(|scope| {
            for rank in 0..3 {
                let reduce = &reduce;
                scope.spawn(move || {
                    for round in 0..50 {
                        let mine = [rank as f32, round as f32];
                        let device = Device::flex();
                        let tensors = vec![
                            Tensor::from_data([mine[0]], &device),
                            Tensor::from_data(mine, &device),
                        ];
                        let sums = reduce.all_reduce(rank, tensors).unwrap();
                        assert_eq!(values(&sums[0]), [3.0]);
                        assert_eq!(values(&sums[1]), [3.0, 3.0 * round as f32]);
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_a_replica_that_left_or_has_other_gradients() {
        let one = || vec![Tensor::<1>::from_data([1.0], &Device::flex())];
        let two = || vec![Tensor::<1>::from_data([1.0], &Device::flex()); 2];
        let reduce = &HostReduce::new(2);
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || reduce.all_reduce(0, one()).unwrap_err());
            std::thread::sleep(std::time::Duration::from_millis(20));
            reduce.leave(1);
            assert_eq!(waits.join().unwrap(), ReduceError::Stopped(1));
        });
        assert_eq!(reduce.all_reduce(0, one()).unwrap_err(), ReduceError::Stopped(1));

        let reduce = &HostReduce::new(2);
        std::thread::scope(|scope| {
            let other = scope.spawn(move || reduce.all_reduce(1, two()).unwrap_err());
            assert_eq!(reduce.all_reduce(0, one()).unwrap_err(), ReduceError::Lengths);
            assert_eq!(other.join().unwrap(), ReduceError::Lengths);
        });
    }
}
