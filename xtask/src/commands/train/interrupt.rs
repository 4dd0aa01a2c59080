//! Ctrl-C and SIGTERM.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use burn::train::Interrupter;

/// Exit code after Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;

/// An interrupter that the first Ctrl-C or SIGTERM triggers. The second one ends the process at
/// once, and the steps since the last checkpoint are lost.
pub(super) fn interrupter_of_signals() -> Result<Interrupter> {
    let (interrupter, again) = (Interrupter::new(), AtomicBool::new(false));
    let signalled = interrupter.clone();
    let handler = move || {
        if again.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        signalled.stop(Some("signal"));
    };
    ctrlc::set_handler(handler).context("the handler of Ctrl-C")?;
    Ok(interrupter)
}
