//! Errors of jobs of several ranks.

/// A sum or a message that cannot be completed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectiveError {
    /// A replica ended, and the others would wait for it forever.
    #[error("replica {0} of the run stopped")]
    Stopped(usize),
    /// Ranks with different numbers of values.
    #[error("the ranks of the run have different numbers of values")]
    Lengths,
    /// The connection to the other ranks was closed.
    #[error("the connection to the other ranks was closed")]
    Ended,
    /// A message that MPI cannot count.
    #[error("a message of {0} bytes to the other ranks: MPI counts at most 2147483647")]
    TooLarge(usize),
    /// MPI cannot be started.
    #[error("MPI cannot be started: {0}")]
    Init(&'static str),
}
