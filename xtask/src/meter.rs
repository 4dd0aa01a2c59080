//! How far and how fast an evaluation is.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use block_transformer_position_loss::Watch;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Parts of the bar.
const PARTS: f64 = 10_000.0;

/// A bar with tokens/s and the time left on a terminal's stderr, lines anywhere else.
pub struct TokenMeter {
    bar: Option<ProgressBar>,
    /// When the first batch was done and how far all was then: what came before is loading, or
    /// another process's work.
    since: Option<(Instant, f64)>,
    tokens: usize,
    line: Instant,
}

impl TokenMeter {
    /// A meter at 0.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {msg}");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(PARTS as u64), ProgressDrawTarget::stderr());
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, since: None, tokens: 0, line: Instant::now() }
    }

    /// Clears the bar and says how fast it went.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some((since, _)) = self.since {
            let (tokens, seconds) = (self.tokens, since.elapsed().as_secs_f64());
            eprintln!("{tokens} tokens in {seconds:.1} s, {:.0} tokens/s", tokens as f64 / seconds);
        }
    }
}

impl Watch for TokenMeter {
    fn advance(&mut self, tokens: usize, share: f64) {
        let Some((since, from)) = self.since else {
            self.since = Some((Instant::now(), share));
            return;
        };
        self.tokens += tokens;
        let seconds = since.elapsed().as_secs_f64();
        let left = seconds * (1.0 - share) / (share - from).max(f64::EPSILON);
        let rate = self.tokens as f64 / seconds;
        let state = format!("{rate:.0} tokens/s, {} left", clock(left));
        match &self.bar {
            Some(bar) => {
                bar.set_message(state);
                bar.set_position((PARTS * share) as u64);
            }
            None if self.line.elapsed() >= LINE_EVERY => {
                self.line = Instant::now();
                eprintln!("{:5.1}% {state}", 100.0 * share);
            }
            None => {}
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

fn clock(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0 => format!("{seconds:.0} s"),
        1..60 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    }
}
