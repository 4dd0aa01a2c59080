//! Bytes per value.

use crate::machine::Machine;

/// Bytes per value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Bytes per value of the matrices of linear layers, except a tied head.
    pub weights: f64,
    /// Bytes per value of caches, activations and token tables.
    pub values: f64,
}

impl From<&Machine> for Sizes {
    fn from(machine: &Machine) -> Self {
        let (weights, values) = (machine.precision.matrices(), machine.precision.values());
        Self { weights: weights.bytes() as f64, values: values.bytes() as f64 }
    }
}
