//! Sums and messages between the ranks of a job.
//!
//! A rank is one participant: it has a number, a part of the work, and a [`Collective`] through which
//! it meets the others. There are three kinds of job, and they nest:
//!
//! - [`Alone`]: one rank.
//! - [`Replica`]: the threads of one process, each with a device. Sums go through the memory of the
//!   process, or from GPU to GPU (NCCL).
//! - [`Mpi`]: processes, of one machine or of many, started by an MPI launcher (feature `mpi`).
//! - [`Nested`]: replicas inside each process of a job.
//!
//! Every method is collective: all ranks call the same methods in the same order. A rank that ends
//! without the others would leave them waiting, so it [leaves](Replica) or [aborts](Collective::abort).

mod agreement;
mod alone;
mod error;
mod meeting;
#[cfg(feature = "mpi")]
mod mpi;
mod nccl;
mod nested;
mod replicas;
mod sharing;
mod values;

pub use agreement::{check_same, named};
pub use alone::Alone;
pub use error::CollectiveError;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use nccl::NoCollectives;
pub use nested::Nested;
pub use replicas::{Replica, replicas};
pub use sharing::{Message, of_rank_0, rank_0_first, share_in_order};
pub use values::Wire;

use std::fmt;
use std::sync::mpsc::Receiver;

use burn::tensor::Tensor;

/// One rank of a job.
pub trait Collective: Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Sums `tensors` over all ranks, tensor by tensor, in their place: the sums are on the device of
    /// `tensors`. All ranks bring tensors of the same lengths, and get sums with the same bits. `wire`
    /// is the format of the values between processes; inside a process they stay f32.
    ///
    /// # Errors
    /// When a rank has left, or the lengths differ.
    fn sum(&self, tensors: Vec<Tensor<1>>, wire: Wire) -> Result<Vec<Tensor<1>>, CollectiveError>;

    /// Begins to sum `values` while this thread goes on. `None` where sums cannot go on by themselves.
    fn begin_sum(&self, values: Vec<f32>, wire: Wire) -> Option<PendingSum> {
        let _ = (values, wire);
        None
    }

    /// Whether [`begin_sum`](Self::begin_sum) begins sums.
    fn begins_sums(&self) -> bool {
        false
    }

    /// Returns the bytes that each rank brings, by rank.
    ///
    /// # Errors
    /// When a rank has left.
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Returns the bytes of rank 0. Those of the other ranks are ignored.
    ///
    /// # Errors
    /// When a rank has left.
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        let bytes = if self.rank() == 0 { bytes } else { Vec::new() };
        Ok(self.gather(bytes)?.swap_remove(0))
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// When a rank has left.
    fn barrier(&self) -> Result<(), CollectiveError> {
        self.gather(Vec::new()).map(drop)
    }

    /// Ends all ranks with `status`.
    fn abort(&self, status: u8) -> !;
}

/// A sum that was begun.
pub struct PendingSum(Receiver<Result<Vec<f32>, CollectiveError>>);

impl PendingSum {
    /// Waits for the sum.
    ///
    /// # Errors
    /// When a rank has left.
    pub fn wait(self) -> Result<Vec<f32>, CollectiveError> {
        self.0.recv().map_err(|_| CollectiveError::Ended)?
    }
}

impl fmt::Debug for PendingSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingSum")
    }
}

/// The part of `count` things that rank `rank` of `size` takes: every `size`-th, from the `rank`-th on.
pub fn share(count: usize, ranks: &dyn Collective) -> impl Iterator<Item = usize> + use<> {
    (ranks.rank()..count).step_by(ranks.size())
}
