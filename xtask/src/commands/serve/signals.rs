//! Signals that end a server.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use block_transformer_server::Shutdown;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

/// Time between two looks for a signal.
const EVERY: Duration = Duration::from_millis(50);

/// Begins `shutdown` at the first signal. The second one ends the process at once, with the exit code that shells give
/// to the signal.
pub(super) fn listen(shutdown: &Shutdown) -> Result<()> {
    let signalled = Arc::new(AtomicBool::new(false));
    let listen = |signal: i32| -> io::Result<()> {
        register_conditional_shutdown(signal, 128 + signal, signalled.clone())?;
        register(signal, signalled.clone()).map(drop)
    };
    listen(SIGINT).context("the handler of Ctrl-C")?;
    listen(SIGTERM).context("the handler of SIGTERM")?;
    let shutdown = shutdown.clone();
    thread::spawn(move || {
        while !signalled.load(Ordering::SeqCst) {
            thread::sleep(EVERY);
        }
        shutdown.begin();
    });
    Ok(())
}
