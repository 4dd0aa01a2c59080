//! Bytes per value.

use block_transformer_family::CacheFormat;

use crate::machine::Machine;

/// Bytes per value, and the format of caches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Bytes per value of the matrices of linear layers, except a tied head.
    pub weights: f64,
    /// Bytes per value of activations and token tables.
    pub values: f64,
    /// The format of KV caches.
    pub cache: CacheFormat,
}

impl From<&Machine> for Sizes {
    fn from(machine: &Machine) -> Self {
        let (weights, values) = (machine.precision.matrices(), machine.precision.values());
        let cache = machine.precision.cache();
        Self { weights: weights.bytes() as f64, values: values.bytes() as f64, cache }
    }
}
