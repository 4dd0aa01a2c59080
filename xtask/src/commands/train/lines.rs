//! Progress of a run as plain lines, for terminals and for log files.

use std::io::Write;
use std::time::Duration;

use block_transformer_bench::size;
use block_transformer_training::{EvaluationScore, MetricsRow, RunEvent, StepProgress};
use indicatif::FormattedDuration;

use crate::output::written;

/// Prints one line per event.
pub(in crate::commands) struct Lines<W>(pub W);

impl<W: Write> Lines<W> {
    /// Prints `event`. A failure does not end the run, but makes the command fail at its end.
    pub(in crate::commands) fn print(&mut self, event: &RunEvent) {
        let line = match event {
            RunEvent::Step(progress) => step(progress),
            RunEvent::Skipped { step, result } => {
                let not_finite = if result.loss.is_finite() { "gradient norm" } else { "loss" };
                format!("step {step}: skipped, because the {not_finite} is not finite")
            }
            RunEvent::Evaluation { step, scores } => format!("step {step}: {}", by_task(scores)),
            RunEvent::Validation { step, loss, sources } => {
                let sources: Vec<_> =
                    sources.iter().map(|(name, loss)| format!("{name} {loss:.4}")).collect();
                let sources = match &sources[..] {
                    [] => String::new(),
                    sources => format!(" ({})", sources.join(", ")),
                };
                format!("step {step}: validation loss {loss:.4}{sources}")
            }
        };
        written(writeln!(self.0, "{line}").and_then(|()| self.0.flush()));
    }
}

fn step(progress: &StepProgress) -> String {
    let StepProgress { metrics, steps, tokens_per_second, mfu, remaining } = progress;
    let MetricsRow { step, loss, lr, grad_norm, seconds, device_memory, .. } = metrics;
    let width = steps.to_string().len();
    let rate = tokens_per_second.map_or_else(|| "-".into(), |rate| format!("{rate:.0}"));
    let mfu = mfu.map_or_else(String::new, |share| format!(" | MFU {:.1}%", 100.0 * share));
    let memory =
        device_memory.map_or_else(String::new, |bytes| format!(" | memory {}", size(bytes as f64)));
    let left = remaining.map_or_else(|| "-".into(), |left| clock(left).to_string());
    format!(
        "step {step:>width$}/{steps} ({:>5.1}%) | loss {loss:.4} | lr {lr:.2e} | grad norm {grad_norm:.3} | \
         {rate} tokens/s{mfu}{memory} | elapsed {} | remaining {left}",
        100.0 * *step as f64 / *steps as f64,
        clock(*seconds),
    )
}

/// The scores of all tasks, such as `lambada acc 0.2500, perplexity 31.2000; piqa acc 0.5100`.
fn by_task(scores: &[EvaluationScore]) -> String {
    let tasks = scores.chunk_by(|a, b| a.task == b.task).map(|scores| {
        let values = scores.iter().map(|score| format!("{} {:.4}", score.metric, score.value));
        format!("{} {}", scores[0].task, values.collect::<Vec<_>>().join(", "))
    });
    tasks.collect::<Vec<_>>().join("; ")
}

fn clock(seconds: f64) -> FormattedDuration {
    FormattedDuration(Duration::try_from_secs_f64(seconds.round()).unwrap_or_default())
}
