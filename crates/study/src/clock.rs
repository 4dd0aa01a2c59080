//! The clock of measurements.

use std::time::Instant;

/// The origin of the durations in a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// Durations are measured.
    #[default]
    Real,
    /// Durations are those that the cost model predicts for an H100, and are the same in every process. For tests: a
    /// study that was killed then ends with the same ledger as one that was not.
    Predicted,
}

impl Clock {
    /// Returns the seconds since `begun`, or `predicted`.
    pub(crate) fn seconds(self, begun: Instant, predicted: f64) -> f64 {
        match self {
            Self::Real => begun.elapsed().as_secs_f64(),
            Self::Predicted => predicted,
        }
    }

    /// Returns whether durations are measured.
    pub(crate) fn is_real(self) -> bool {
        self == Self::Real
    }
}
