//! Replicas inside the processes of a job.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::values::{Values, Wire};
use crate::{Collective, CollectiveError, Replica};

/// One of the replicas of one of the processes of a job. Every process has the same number of replicas.
/// The ranks of a process follow each other.
pub struct Nested {
    inner: Replica,
    /// The process. Only its first replica speaks for it.
    outer: Arc<dyn Collective>,
}

impl Nested {
    /// All replicas of the process `outer`.
    pub fn all(inner: Vec<Replica>, outer: &Arc<dyn Collective>) -> Vec<Self> {
        inner.into_iter().map(|inner| Self { inner, outer: outer.clone() }).collect()
    }

    fn speaks(&self) -> bool {
        self.inner.rank() == 0
    }
}

impl Collective for Nested {
    fn rank(&self) -> usize {
        self.outer.rank() * self.inner.size() + self.inner.rank()
    }

    fn size(&self) -> usize {
        self.outer.size() * self.inner.size()
    }

    fn sum(&self, tensors: Vec<Tensor<1>>, wire: Wire) -> Result<Vec<Tensor<1>>, CollectiveError> {
        let sums = self.inner.sum(tensors, wire)?;
        if self.outer.size() == 1 {
            return Ok(sums);
        }
        if self.speaks() {
            let sums = self.outer.sum(sums, wire)?;
            if self.inner.size() > 1 {
                let values = Values::of(sums.clone()).map(|sums| sums.values).unwrap_or_default();
                self.inner.broadcast(bytemuck::cast_slice(&values).to_vec())?;
            }
            return Ok(sums);
        }
        let bytes = self.inner.broadcast(Vec::new())?;
        let Some(own) = Values::of(sums) else { return Ok(Vec::new()) };
        if bytes.len() != size_of_val(&own.values[..]) {
            return Err(CollectiveError::Lengths);
        }
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(own.tensors(&values))
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let own = self.inner.gather(bytes)?;
        let all = if self.speaks() {
            let processes = self.outer.gather(framed(&own))?;
            let all: Vec<Vec<u8>> = processes.iter().flat_map(|bytes| parts(bytes)).collect();
            self.inner.broadcast(framed(&all))?
        } else {
            self.inner.broadcast(Vec::new())?
        };
        Ok(parts(&all))
    }

    fn abort(&self, status: u8) -> ! {
        self.outer.abort(status)
    }
}

/// `parts` in one message, each after its length.
pub(crate) fn framed(parts: &[Vec<u8>]) -> Vec<u8> {
    let with_length = |part: &Vec<u8>| [&(part.len() as u64).to_le_bytes(), &part[..]].concat();
    parts.iter().flat_map(with_length).collect()
}

/// The parts of a [`framed`] message.
pub(crate) fn parts(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (part, rest) = rest.split_at(length.min(rest.len()));
        parts.push(part.to_vec());
        bytes = rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Two processes of two replicas, as threads: the outer collective is made of replicas as well.
    #[test]
    fn sums_and_messages_are_over_all_replicas_of_all_processes() {
        let outer = Replica::on_host(2);
        let of_process = |outer| Nested::all(Replica::on_host(2), &(Arc::new(outer) as _));
        let all: Vec<Nested> = outer.into_iter().flat_map(of_process).collect();
        let ranks: Vec<usize> = all.iter().map(Collective::rank).collect();
        assert_eq!((ranks, all[0].size()), (vec![0, 1, 2, 3], 4));
        std::thread::scope(|scope| {
            for nested in all {
                scope.spawn(move || {
                    let rank = nested.rank();
                    for _ in 0..20 {
                        let device = Device::flex();
                        let mine = [rank as f32, 1.0];
                        let tensors =
                            vec![Tensor::from_data(mine, &device), Tensor::ones([3], &device)];
                        let sums = nested.sum(tensors, Wire::F32).unwrap();
                        let values = |sum: &Tensor<1>| sum.to_data().iter().collect::<Vec<f32>>();
                        assert_eq!(values(&sums[0]), [6.0, 4.0]);
                        assert_eq!(values(&sums[1]), [4.0; 3]);
                        let all = nested.gather(vec![rank as u8; rank]).unwrap();
                        assert_eq!(all, [vec![], vec![1], vec![2; 2], vec![3; 3]]);
                        assert_eq!(nested.broadcast(vec![rank as u8]).unwrap(), [0]);
                    }
                });
            }
        });
    }

    #[test]
    fn messages_are_framed() {
        let all = vec![vec![], vec![1, 2, 3], vec![9; 300]];
        assert_eq!(parts(&framed(&all)), all);
    }
}
