//! burn-train's terminal dashboard, for people who watch a run.

use std::any::Any;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use block_transformer_training::{INTERRUPTED, Progress, Reporter};
use burn::train::Interrupter;
use burn::train::logger::TrainingProgressLogger;
use burn::train::metric::{
    MetricAttributes, MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{MetricState, MetricsRenderer, MetricsRendererTraining};

const TICK: Duration = Duration::from_millis(200);
const LOSS: &str = "Loss";
const LR: &str = "Learning rate";
const NORM: &str = "Gradient norm";
const SPEED: &str = "Tokens/s";

enum Event {
    Step(Progress),
    Validation(f64),
}

/// A run on the whole terminal; plain lines take over when it closes.
///
/// burn's renderer lives on a thread of its own: its "kill" panics, which here ends the process.
pub struct Dashboard {
    events: Option<Sender<Event>>,
    screen: Option<JoinHandle<()>>,
    notes: Vec<String>,
}

impl Dashboard {
    /// A dashboard whose "stop" raises `stop`; none where there is no terminal to draw on.
    pub fn open(label: String, steps: u64, stop: Arc<AtomicBool>) -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return None;
        }
        let (events, received) = channel();
        let screen = move || {
            let shown = AssertUnwindSafe(|| show(&label, steps, &stop, &received));
            if catch_unwind(shown).is_err_and(|panic| was_kill(panic.as_ref())) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        };
        let screen = thread::Builder::new().name("dashboard".into()).spawn(screen).ok()?;
        Some(Self { events: Some(events), screen: Some(screen), notes: Vec::new() })
    }

    fn send(&self, event: Event) {
        // a screen that has gone must not end a run
        let _ = self.events.as_ref().map(|events| events.send(event));
    }
}

impl Reporter for Dashboard {
    fn step(&mut self, progress: &Progress) {
        self.send(Event::Step(*progress));
    }

    fn validation(&mut self, _: u64, loss: f64) {
        self.send(Event::Validation(loss));
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.events = None;
        let _ = self.screen.take().map(JoinHandle::join);
        for note in &self.notes {
            say!("{note}");
        }
    }
}

/// Draws until the run lets go of its end of the channel.
fn show(label: &str, steps: u64, stop: &AtomicBool, events: &Receiver<Event>) {
    let interrupter = Interrupter::new();
    let mut screen = TuiMetricsRendererWrapper::new(interrupter.clone(), None);
    for (name, higher_is_better) in [(LOSS, false), (LR, true), (NORM, false), (SPEED, true)] {
        screen.register_metric(MetricDefinition {
            metric_id: id(name),
            name: Arc::new(name.into()),
            description: None,
            attributes: MetricAttributes::Numeric(NumericAttributes {
                unit: None,
                higher_is_better,
            }),
        });
    }
    let all = usize::try_from(steps).unwrap_or(usize::MAX);
    // the dashboard thinks in epochs: the run is one, of `all` steps
    screen.start(1, 1, None, Some(label));
    screen.start_split("train", all);
    let mut done = 0;
    loop {
        match events.recv_timeout(TICK) {
            Ok(Event::Step(at)) => {
                done = usize::try_from(at.step).unwrap_or(all);
                screen.update_train(metric(LOSS, at.loss, format!("{:.4}", at.loss)));
                screen.update_train(metric(LR, at.lr, format!("{:.2e}", at.lr)));
                screen.update_train(metric(NORM, at.grad_norm, format!("{:.3}", at.grad_norm)));
                if let Some(speed) = at.tokens_per_second {
                    screen.update_train(metric(SPEED, speed, format!("{speed:.0}")));
                }
            }
            Ok(Event::Validation(loss)) => {
                screen.update_valid(metric(LOSS, loss, format!("{loss:.4}")));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // also where burn notices that the user chose to kill
        screen.update_split(done);
        if interrupter.should_stop() {
            stop.store(true, Ordering::SeqCst);
        }
        keep_ctrl_c();
    }
}

fn id(name: &str) -> MetricId {
    MetricId::new(Arc::new(name.into()))
}

fn metric(name: &str, value: f64, text: String) -> MetricState {
    let entry = MetricEntry::new(id(name), SerializedEntry::new(text.clone(), text));
    MetricState::Numeric(entry, Some(NumericEntry::Value(value)))
}

/// burn ends "Stop the training immediately" with this panic, its message already shown.
fn was_kill(panic: &(dyn Any + Send)) -> bool {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .is_some_and(|text| text.contains("Killing training"))
}

/// The renderer reads raw keys, among which Ctrl-C would be one more; here it stays a signal.
fn keep_ctrl_c() {
    #[cfg(unix)]
    // SAFETY: plain calls on a descriptor the process owns, with a struct that lives long enough.
    unsafe {
        let mut mode = std::mem::zeroed::<libc::termios>();
        if libc::tcgetattr(libc::STDIN_FILENO, &raw mut mode) == 0 && mode.c_lflag & libc::ISIG == 0
        {
            mode.c_lflag |= libc::ISIG;
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const mode);
        }
    }
}
