//! Progress of a run as plain lines, for terminals and for log files.

use std::io::Write;

use block_transformer_training::{MetricsRow, RunEvent, StepProgress};

/// Prints one line per event.
pub(super) struct Lines<W>(pub W);

impl<W: Write> Lines<W> {
    /// Prints `event`. A closed pipe does not end the run.
    pub(super) fn print(&mut self, event: &RunEvent) {
        let line = match event {
            RunEvent::Step(progress) => step(progress),
            RunEvent::Validation { step, loss } => {
                format!("step {step}: validation loss {loss:.4}")
            }
        };
        let _ = writeln!(self.0, "{line}").and_then(|()| self.0.flush());
    }
}

fn step(progress: &StepProgress) -> String {
    let StepProgress { metrics, steps, tokens_per_second, remaining } = progress;
    let MetricsRow { step, loss, lr, grad_norm, seconds, .. } = metrics;
    let width = steps.to_string().len();
    let rate = tokens_per_second.map_or_else(|| "-".into(), |rate| format!("{rate:.0}"));
    let left = remaining.map_or_else(|| "-".into(), clock);
    format!(
        "step {step:>width$}/{steps} ({:>5.1}%) | loss {loss:.4} | lr {lr:.2e} | grad norm {grad_norm:.3} | \
         {rate} tokens/s | elapsed {} | remaining {left}",
        100.0 * *step as f64 / *steps as f64,
        clock(*seconds),
    )
}

/// Hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}
