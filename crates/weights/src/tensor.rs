//! Tensors on the host.

use std::collections::BTreeMap;

/// A tensor on the host, in its published layout.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes of its axes.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// Tensors by published name.
pub type HostTensors = BTreeMap<String, HostTensor>;
