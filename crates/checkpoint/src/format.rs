//! The format of checkpoints.

/// The checkpoint format that is written. A manifest of format 1 was a plain map of files and
/// stated no format.
pub(crate) const FORMAT: u64 = 2;
