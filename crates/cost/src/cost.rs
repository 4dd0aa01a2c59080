//! Work and memory traffic of a computation, and the time that they take.

use std::iter::Sum;
use std::ops::{Add, Mul};

use crate::machine::Machine;

/// The work and memory traffic of a computation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// FLOPs of products with weights.
    pub matrix_flops: f64,
    /// FLOPs of attention: scores, and weighted sums of values.
    pub attention_flops: f64,
    /// Bytes of weights read.
    pub weights: f64,
    /// Bytes of keys and values read and written.
    pub caches: f64,
    /// Bytes of all other values read and written, if nothing stays in the caches of the processor.
    pub activations: f64,
}

impl Cost {
    /// Returns all FLOPs.
    pub fn flops(&self) -> f64 {
        self.matrix_flops + self.attention_flops
    }

    /// Returns the least time in seconds that `machine` needs: the larger of the time for the
    /// arithmetic and the time to move weights and caches. Activations do not count, because they
    /// may stay on the chip.
    pub fn bound(&self, machine: &Machine) -> f64 {
        (self.flops() / machine.flops).max((self.weights + self.caches) / machine.bandwidth)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            matrix_flops: self.matrix_flops + other.matrix_flops,
            attention_flops: self.attention_flops + other.attention_flops,
            weights: self.weights + other.weights,
            caches: self.caches + other.caches,
            activations: self.activations + other.activations,
        }
    }
}

impl Mul<f64> for Cost {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self {
            matrix_flops: self.matrix_flops * factor,
            attention_flops: self.attention_flops * factor,
            weights: self.weights * factor,
            caches: self.caches * factor,
            activations: self.activations * factor,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// The costs of the phases of a computation. Phases run one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Phases(pub Vec<Cost>);

impl Phases {
    /// Returns the cost of all phases together.
    pub fn total(&self) -> Cost {
        self.0.iter().copied().sum()
    }

    /// Returns the seconds of all phases if they do not overlap and each phase is as fast as the
    /// peaks of `machine` allow: arithmetic in one phase does not hide memory traffic in another.
    /// The traffic includes the activations.
    pub fn seconds(&self, machine: &Machine) -> f64 {
        let seconds = |cost: &Cost| {
            let bytes = cost.weights + cost.caches + cost.activations;
            (cost.flops() / machine.flops).max(bytes / machine.bandwidth)
        };
        self.0.iter().map(seconds).sum()
    }
}
