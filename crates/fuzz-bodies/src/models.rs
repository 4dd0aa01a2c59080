//! The readers that need burn.

pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod tasks;
