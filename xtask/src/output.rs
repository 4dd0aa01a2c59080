//! Stdout and stderr. A reader that has closed the pipe, such as `head`, is not an error; any other
//! failure to write to stdout makes the command fail at its end.

use std::io::{Error, ErrorKind, Result, Write, stdout};
use std::sync::OnceLock;

static FAILURE: OnceLock<Error> = OnceLock::new();

/// Keeps the first failure to write to stdout.
pub(crate) fn written(result: Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = FAILURE.set(error);
    }
}

/// Returns the first failure to write to stdout, if there was one.
pub(crate) fn failure() -> Option<&'static Error> {
    written(stdout().flush());
    FAILURE.get()
}
