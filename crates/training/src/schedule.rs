//! The learning rate of each step.

use std::f64::consts::PI;

use crate::config::TrainConfig;

/// Linear warm-up, then half a cosine from the peak down to the fraction `lr_end` of it.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    peak: f64,
    end: f64,
    warmup: u64,
    steps: u64,
}

impl Schedule {
    /// The schedule of a run with configuration `config`.
    pub fn new(config: &TrainConfig) -> Self {
        let TrainConfig { lr, lr_end, warmup, steps, .. } = *config;
        Self { peak: lr, end: lr * lr_end, warmup, steps }
    }

    /// Learning rate of step `step`, counted from 1.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let left = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / left).min(1.0);
        self.end + (self.peak - self.end) * 0.5 * (1.0 + (PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_a_tenth() {
        let schedule = Schedule { peak: 2.0, end: 0.2, warmup: 10, steps: 110 };
        for (step, rate) in [(1, 0.2), (5, 1.0), (10, 2.0), (60, 1.1), (110, 0.2), (200, 0.2)] {
            assert!((schedule.rate(step) - rate).abs() < 1e-12, "{step}: {}", schedule.rate(step));
        }
        let bare = Schedule { peak: 1.0, end: 0.1, warmup: 0, steps: 1 };
        assert!((bare.rate(1) - 0.1).abs() < 1e-12);
    }
}
