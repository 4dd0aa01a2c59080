//! Signals that end a run with a checkpoint.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use block_transformer_collectives::Collective;
use burn::train::Interrupter;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown, register_usize};

/// Exit code after Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;
/// Exit code after a signal with which a queue ends a job: it can be started again (`EX_TEMPFAIL` of
/// sysexits.h).
pub(super) const REQUEUE: u8 = 75;

/// Time between two looks for a signal.
const EVERY: Duration = Duration::from_millis(50);

/// Signals of queues: Slurm sends SIGUSR1, or another that it is told to, before the time limit.
#[cfg(unix)]
const OF_QUEUES: [i32; 3] = [SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGUSR1];
#[cfg(not(unix))]
const OF_QUEUES: [i32; 1] = [SIGTERM];

/// The signals that this process got.
pub(in crate::commands) struct Signals {
    /// Triggered by the first signal. The second one ends the process at once, and the steps since the last
    /// checkpoint are lost.
    pub(in crate::commands) interrupter: Interrupter,
    status: Arc<AtomicUsize>,
}

impl Signals {
    /// Listens to signals.
    pub(in crate::commands) fn listen() -> Result<Self> {
        let status = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        let listen = |signal, code: u8| -> io::Result<()> {
            register_conditional_shutdown(signal, i32::from(code), again.clone())?;
            register(signal, again.clone())?;
            register_usize(signal, status.clone(), usize::from(code)).map(drop)
        };
        listen(SIGINT, INTERRUPTED).context("the handler of Ctrl-C")?;
        for signal in OF_QUEUES {
            listen(signal, REQUEUE).context("the handlers of signals")?;
        }
        let interrupter = Interrupter::new();
        let (signalled, seen) = (interrupter.clone(), status.clone());
        thread::spawn(move || {
            while seen.load(Ordering::SeqCst) == 0 {
                thread::sleep(EVERY);
            }
            signalled.stop(Some("signal"));
        });
        Ok(Self { interrupter, status })
    }

    /// The exit code of an interrupted run. It is the same on all ranks, although only some may have got a signal.
    pub(in crate::commands) fn code(&self, ranks: &dyn Collective) -> Result<u8> {
        let own = u8::try_from(self.status.load(Ordering::SeqCst)).unwrap_or(INTERRUPTED);
        let all = ranks.gather(vec![own])?;
        let code = all.into_iter().flatten().max().filter(|&code| code > 0);
        Ok(code.unwrap_or(INTERRUPTED))
    }
}
