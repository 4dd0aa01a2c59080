//! Ctrl-C and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::TrainError;

/// Exit code after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// A flag that the first Ctrl-C or SIGTERM raises, for [`run`](crate::run) to stop at; the second
/// ends the process at once, which costs the steps since the last checkpoint.
///
/// # Errors
/// When the process has such a handler already.
pub fn on_interrupt() -> Result<Arc<AtomicBool>, TrainError> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = flag.clone();
    let handler = move || {
        if raised.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    ctrlc::set_handler(handler).map_err(|e| TrainError::Choice(format!("Ctrl-C handler: {e}")))?;
    Ok(flag)
}
