//! Work and memory traffic of a computation, and the time that they take.

use std::iter::Sum;
use std::ops::{Add, Mul};

use serde::Serialize;

use crate::machine::Machine;

/// The work and memory traffic of a computation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
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
    /// arithmetic and the time to read weights and caches. Activations may stay on the chip.
    pub fn bound(&self, machine: &Machine) -> f64 {
        let bytes = self.weights + self.caches;
        (self.flops() / machine.flops).max(bytes / machine.bandwidth)
    }

    /// Returns the larger of the time for the arithmetic and the time to read weights, caches and
    /// activations, in seconds.
    fn with_activations(&self, machine: &Machine) -> f64 {
        let bytes = self.weights + self.caches + self.activations;
        (self.flops() / machine.flops).max(bytes / machine.bandwidth)
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

/// One phase of a computation. Phases run one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// The name.
    pub name: &'static str,
    /// Its cost.
    pub cost: Cost,
}

/// The phases of a computation, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phases(pub Vec<Phase>);

impl Phases {
    /// Returns the cost of all phases together.
    pub fn total(&self) -> Cost {
        self.0.iter().map(|phase| phase.cost).sum()
    }

    /// Returns the seconds of all phases if they do not overlap and each is as fast as the peaks of
    /// `machine` allow: arithmetic in one phase does not hide memory traffic in another.
    pub fn seconds(&self, machine: &Machine) -> f64 {
        self.0.iter().map(|phase| phase.cost.with_activations(machine)).sum()
    }

    pub(crate) fn push(&mut self, name: &'static str, cost: Cost) {
        self.0.push(Phase { name, cost });
    }

    /// Multiplies the cost of every phase.
    pub(crate) fn times(mut self, factor: f64) -> Self {
        for phase in &mut self.0 {
            phase.cost = phase.cost * factor;
        }
        self
    }
}
