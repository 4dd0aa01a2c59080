//! What a run says while it goes on.

use std::io::Write;

/// Where a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Training loss of this step.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Real tokens a second of training, the first steps of the process not counted; none until
    /// then.
    pub tokens_per_second: Option<f64>,
    /// Seconds spent on the run.
    pub elapsed: f64,
    /// Seconds to the end at this speed.
    pub remaining: Option<f64>,
}

/// Hears of a run's events.
pub trait Reporter {
    /// A step at the log interval.
    fn step(&mut self, progress: &Progress);
    /// A validation after `step`.
    fn validation(&mut self, step: u64, loss: f64);
    /// Anything else worth a line.
    fn note(&mut self, text: &str);
}

/// Plain lines, for terminals and log files alike.
#[derive(Debug)]
pub struct Lines<W>(pub W);

impl<W: Write> Lines<W> {
    fn line(&mut self, text: &str) {
        // a closed pipe must not end a run
        let _ = writeln!(self.0, "{text}").and_then(|()| self.0.flush());
    }
}

impl<W: Write> Reporter for Lines<W> {
    fn step(&mut self, p: &Progress) {
        let width = p.steps.to_string().len();
        let rate = p.tokens_per_second.map_or_else(|| "-".into(), |rate| format!("{rate:.0}"));
        let left = p.remaining.map_or_else(|| "-".into(), clock);
        self.line(&format!(
            "step {:>width$}/{} ({:>5.1}%) | loss {:.4} | lr {:.2e} | grad norm {:.3} | {rate} tokens/s | \
             elapsed {} | remaining {left}",
            p.step,
            p.steps,
            100.0 * p.step as f64 / p.steps as f64,
            p.loss,
            p.lr,
            p.grad_norm,
            clock(p.elapsed),
        ));
    }

    fn validation(&mut self, step: u64, loss: f64) {
        self.line(&format!("step {step}: validation loss {loss:.4}"));
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }
}

/// Says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Reporter for Silent {
    fn step(&mut self, _: &Progress) {}
    fn validation(&mut self, _: u64, _: f64) {}
    fn note(&mut self, _: &str) {}
}

/// Hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}
