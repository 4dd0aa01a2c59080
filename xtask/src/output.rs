//! Stdout and stderr. A reader that has closed the pipe, such as `head`, is not an error; any other
//! failure to write to stdout makes the command fail at its end.

use std::io::{Error, ErrorKind, Result, Write, stderr, stdout};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static FAILURE: OnceLock<Error> = OnceLock::new();

/// Whether this process prints errors only, because another process prints for it.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Prints nothing but errors from now on.
pub(crate) fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Whether only errors are printed.
pub(crate) fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Prints an error to stderr if possible.
pub(crate) fn error(text: &str) {
    let _ = writeln!(stderr(), "error: {text}");
}

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
