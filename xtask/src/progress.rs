//! Progress bars, and the speed of an evaluation on documents.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use block_transformer_datasets::Progress;
use block_transformer_evaluation::documents::{BookRow, Observer};
use indicatif::{HumanDuration, ProgressBar, ProgressFinish, ProgressStyle};

/// Time between two lines if there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Returns a progress bar on stderr if that is a terminal.
fn bar(template: &str) -> Option<ProgressBar> {
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::new(0).with_finish(ProgressFinish::AndClear);
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    std::io::stderr().is_terminal().then_some(bar)
}

/// Returns a function that draws a progress bar from the amount done and the total.
pub(crate) fn progress(name: &str) -> impl FnMut(u64, u64) + use<> {
    let bar = bar("{prefix} {bar:40} {percent:>3}%, {eta} left");
    let bar = bar.map(|bar| bar.with_prefix(name.to_string()));
    move |done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

/// Shows the tokens per second of a preparation and the time left, as a progress bar on a terminal and as
/// lines elsewhere.
pub(crate) struct PrepareMeter {
    bar: Option<ProgressBar>,
    /// The time and the amount done when tokenizing began; earlier work was that of a killed process.
    since: Option<(Instant, u64)>,
    tokens: u64,
    line: Instant,
}

impl PrepareMeter {
    /// Creates a meter at 0.
    pub(crate) fn new() -> Self {
        let bar = bar("{bar:40} {percent:>3}% {msg}");
        Self { bar, since: None, tokens: 0, line: Instant::now() }
    }

    /// Shows `at`.
    pub(crate) fn show(&mut self, at: Progress) {
        if at.tokens == 0 {
            self.since = Some((Instant::now(), at.done));
            if at.continued > 0 {
                note!("continuing after {} documents", at.continued);
            }
        }
        self.tokens = at.tokens;
        if let Some(bar) = &self.bar {
            bar.set_length(at.total);
            bar.set_position(at.done);
        }
        let Some((since, from)) = self.since.filter(|_| at.tokens > 0) else { return };
        let elapsed = since.elapsed();
        let ratio = (at.total - at.done) as f64 / (at.done - from).max(1) as f64;
        let left = HumanDuration(elapsed.mul_f64(ratio));
        let rate = at.tokens as f64 / elapsed.as_secs_f64();
        let state = format!("{rate:.0} tokens/s, {left} left");
        match &self.bar {
            Some(bar) => bar.set_message(state),
            None if self.line.elapsed() >= LINE_EVERY => {
                self.line = Instant::now();
                note!("{:5.1}% {state}", 100.0 * at.done as f64 / at.total as f64);
            }
            None => {}
        }
    }

    /// Clears the bar and prints the speed, if anything was tokenized.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let (Some((since, _)), 1..) = (self.since, self.tokens) {
            let (tokens, seconds) = (self.tokens, since.elapsed().as_secs_f64());
            note!("{tokens} tokens in {seconds:.1} s, {:.0} tokens/s", tokens as f64 / seconds);
        }
    }
}

/// Shows tokens per second and the time left, as a progress bar on a terminal and as lines
/// elsewhere.
pub(crate) struct TokenMeter {
    bar: Option<ProgressBar>,
    /// Time and bytes done after the first batch. Earlier time was spent on loading, and earlier
    /// bytes can be the work of a previous process.
    since: Option<(Instant, u64)>,
    tokens: usize,
    line: Instant,
}

impl TokenMeter {
    /// Creates a meter at 0.
    pub(crate) fn new() -> Self {
        let bar = bar("{bar:40} {percent:>3}% {msg}");
        Self { bar, since: None, tokens: 0, line: Instant::now() }
    }

    /// Clears the bar and prints the speed.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some((since, _)) = self.since {
            let (tokens, seconds) = (self.tokens, since.elapsed().as_secs_f64());
            note!("{tokens} tokens in {seconds:.1} s, {:.0} tokens/s", tokens as f64 / seconds);
        }
    }
}

impl Observer for TokenMeter {
    fn batch(&mut self, tokens: usize, done: u64, total: u64) {
        let Some((since, from)) = self.since else {
            self.since = Some((Instant::now(), done));
            return;
        };
        self.tokens += tokens;
        let elapsed = since.elapsed();
        let ratio = (total - done) as f64 / (done - from).max(1) as f64;
        let left = HumanDuration(elapsed.mul_f64(ratio));
        let rate = self.tokens as f64 / elapsed.as_secs_f64();
        let state = format!("{rate:.0} tokens/s, {left} left");
        match &self.bar {
            Some(bar) => {
                bar.set_message(state);
                bar.set_length(total);
                bar.set_position(done);
            }
            None if self.line.elapsed() >= LINE_EVERY => {
                self.line = Instant::now();
                note!("{:5.1}% {state}", 100.0 * done as f64 / total as f64);
            }
            None => {}
        }
    }

    fn book(&mut self, row: &BookRow) {
        let tally = &row.tally;
        let loss = match tally.predicted {
            0 => String::new(),
            tokens => format!(", {:.4} nats per token", tally.total_nats / tokens as f64),
        };
        let windows = match tally.windows {
            0 => "shorter than a window".to_string(),
            1 => "1 window".to_string(),
            n => format!("{n} windows"),
        };
        let BookRow { checkpoint, book, tokens, .. } = row;
        let line = format!("{checkpoint}: {book}, {tokens} tokens, {windows}{loss}");
        match &self.bar {
            Some(bar) => bar.println(line),
            None => note!("{line}"),
        }
    }
}
