//! The rows of a call of attention over a KV cache.

use crate::indices::Indices;

/// The rows of new positions of [`cached_attention`](crate::cached_attention).
#[derive(Clone, Copy, Debug)]
pub struct CachedRows<'a> {
    /// The slot of each row.
    pub slots: &'a Indices,
    /// The number of new positions of each row, if the positions of all rows follow each other in one
    /// sequence; `None` if all rows have the same number.
    pub lengths: Option<&'a Indices>,
    /// The number of queries of each row, its last new positions; `None` for all new positions.
    pub keep: Option<usize>,
}
