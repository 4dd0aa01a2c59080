//! Panics of the Parquet library, which damaged files cause, as errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::parquet::errors::{ParquetError, Result};

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a panic of this thread is caught and reported as an error of a damaged file. A
/// panic hook can then keep quiet about it.
pub fn is_caught_as_damage() -> bool {
    CATCHES.get()
}

/// Runs `read`. A panic is an error. What `read` has changed must not be used after it.
pub(super) fn caught<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    CATCHES.set(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    CATCHES.set(false);
    result.unwrap_or_else(|_| Err(ParquetError::General("the file is damaged".into())))
}
