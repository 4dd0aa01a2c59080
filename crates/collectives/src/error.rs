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
    /// Ranks that did not begin alike. All ranks get this error.
    #[error(
        "the ranks of the run have different values of {property}: rank 0 has {first}, {ranks} {} {other}; start \
         all ranks with the same program, flags and files",
        if ranks.starts_with("ranks") { "have, for example," } else { "has" }
    )]
    Differ {
        /// What differs.
        property: String,
        /// Its value on rank 0.
        first: String,
        /// The ranks with another value.
        ranks: String,
        /// The value of the first of them.
        other: String,
    },
    /// A rank that shares other work than this one.
    #[error(
        "rank {0} has other work than this rank; start all ranks with the same program, flags and files"
    )]
    OtherWork(usize),
    /// A value that cannot be sent or read as JSON.
    #[error("a value for the other ranks is no JSON: {0}")]
    Json(String),
    /// MPI cannot be started.
    #[error("MPI cannot be started: {0}")]
    Init(&'static str),
}

impl CollectiveError {
    /// Whether all ranks get this error, so that none waits for another.
    pub fn is_of_all_ranks(&self) -> bool {
        matches!(self, Self::Differ { .. })
    }
}
