//! Tensors by name, in memory or in files.

use std::collections::BTreeMap;

use crate::error::TensorFileError;

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

/// Tensors that can be read one at a time.
pub trait TensorSource {
    /// The names of all tensors, sorted.
    fn names(&self) -> Vec<String>;

    /// The sizes of the axes of a tensor; `None` if there is no tensor of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Reads a tensor as f32; `None` if there is no tensor of this name.
    ///
    /// # Errors
    /// When its file cannot be read, or stores it in a format that is not supported.
    fn read(&self, name: &str) -> Result<Option<HostTensor>, TensorFileError>;

    /// Reads all tensors.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    fn read_all(&self) -> Result<HostTensors, TensorFileError> {
        let read = |name: String| Ok(self.read(&name)?.map(|tensor| (name, tensor)));
        self.names().into_iter().filter_map(|name| read(name).transpose()).collect()
    }
}

impl TensorSource for HostTensors {
    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.get(name)?.shape.clone())
    }

    fn read(&self, name: &str) -> Result<Option<HostTensor>, TensorFileError> {
        Ok(self.get(name).cloned())
    }
}
