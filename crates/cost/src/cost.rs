//! Work and traffic, and the time they take.

use std::iter::Sum;
use std::ops::{Add, Mul};

use serde::Serialize;

use crate::Machine;

/// What something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// FLOPs of products with weights.
    pub matrix_flops: f64,
    /// FLOPs of attention: scores, and sums of values.
    pub attention_flops: f64,
    /// Bytes of weights read.
    pub weights: f64,
    /// Bytes of keys and values read and written.
    pub caches: f64,
    /// Bytes of everything else read and written, if nothing stays in a cache of the processor.
    pub activations: f64,
}

impl Cost {
    /// All FLOPs.
    pub fn flops(&self) -> f64 {
        self.matrix_flops + self.attention_flops
    }

    /// Seconds that `machine` takes at least: arithmetic, or reading weights and caches, whichever
    /// takes longer. Activations may stay on the chip.
    pub fn bound(&self, machine: &Machine) -> f64 {
        let bytes = self.weights + self.caches;
        (self.flops() / machine.flops).max(bytes / machine.bandwidth)
    }

    /// The same when activations go through memory too.
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

/// A part of the work that comes after the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// What is done.
    pub name: &'static str,
    /// What it takes.
    pub cost: Cost,
}

/// Work in parts, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phases(pub Vec<Phase>);

impl Phases {
    /// All parts together.
    pub fn total(&self) -> Cost {
        self.0.iter().map(|phase| phase.cost).sum()
    }

    /// Seconds if the parts do not overlap, and each is as fast as `machine`'s peaks allow:
    /// attention waits for memory while the arithmetic units idle, and the other way round.
    pub fn seconds(&self, machine: &Machine) -> f64 {
        self.0.iter().map(|phase| phase.cost.with_activations(machine)).sum()
    }

    pub(crate) fn push(&mut self, name: &'static str, cost: Cost) {
        self.0.push(Phase { name, cost });
    }

    /// Every part `factor` times.
    pub(crate) fn times(mut self, factor: f64) -> Self {
        for phase in &mut self.0 {
            phase.cost = phase.cost * factor;
        }
        self
    }
}
