//! burn-train's terminal dashboard. Ctrl-C still sends SIGINT (on Unix), and the dashboard's
//! "kill" command ends the program with exit code 130.

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use block_transformer_training::{Outcome, TrainError, TrainingRun};
use burn::train::Interrupter;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;

use super::interrupt::INTERRUPTED;

/// Intervals between checks of the terminal mode: before and after the dashboard has switched to
/// raw mode.
const TICKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(200)];

/// Returns whether there is a terminal to draw on.
pub(super) fn is_possible() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    !dumb && std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// Executes `run` with the full-screen dashboard.
pub(super) fn launch(run: TrainingRun, interrupter: Interrupter) -> Result<Outcome, TrainError> {
    // This hook must be set before burn sets its own. burn's hook calls this one for every panic
    // except the panic of a "kill".
    let (faulty, hook) = (Arc::new(AtomicBool::new(false)), take_hook());
    let seen = faulty.clone();
    set_hook(Box::new(move |panic| {
        seen.store(true, Ordering::SeqCst);
        hook(panic);
    }));
    let _signals = keep_signals();
    let screen = TuiMetricsRendererWrapper::new(interrupter.clone(), Some(run.epochs_done()));
    let train = AssertUnwindSafe(|| {
        run.launch(|training| training.renderer(Box::new(screen)).with_interrupter(interrupter))
    });
    match catch_unwind(train) {
        Ok(outcome) => outcome,
        Err(panic) if faulty.load(Ordering::SeqCst) => resume_unwind(panic),
        Err(_) => std::process::exit(i32::from(INTERRUPTED)),
    }
}

/// Keeps Ctrl-C sending SIGINT until the guard is dropped. The dashboard switches the terminal to
/// raw mode and would otherwise ignore Ctrl-C. Outside Unix this has no effect.
fn keep_signals() -> Arc<()> {
    let guard = Arc::new(());
    let held = Arc::downgrade(&guard);
    thread::spawn(move || {
        let mut corrected = false;
        while held.strong_count() > 0 {
            corrected |= enable_signals();
            thread::sleep(TICKS[usize::from(corrected)]);
        }
    });
    guard
}

/// Turns the terminal's signal keys (`ISIG`) on. Returns whether they were off. Outside Unix this
/// function does nothing and returns true.
#[cfg(unix)]
fn enable_signals() -> bool {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let Ok(mut mode) = tcgetattr(&stdin) else { return false };
    let off = !mode.local_modes.contains(LocalModes::ISIG);
    if off {
        mode.local_modes |= LocalModes::ISIG;
        // if this fails, the keys of the dashboard still work
        let _ = tcsetattr(&stdin, OptionalActions::Now, &mode);
    }
    off
}

#[cfg(not(unix))]
fn enable_signals() -> bool {
    true
}
