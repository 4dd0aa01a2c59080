//! The format of checkpoints.

/// The checkpoint format that is written. A manifest of format 1 was a plain map of files, without
/// a format number.
pub(crate) const FORMAT: u64 = 2;
