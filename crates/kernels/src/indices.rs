//! Integers on the host and on devices.

use std::ops::Deref;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::per_device::PerDevice;

/// Positions or slots, as a slice on the host and as a tensor that is created once per device.
#[derive(Clone, Debug)]
pub struct Indices {
    values: Arc<[usize]>,
    tensors: PerDevice<Tensor<1, Int>>,
}

impl PartialEq for Indices {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl Eq for Indices {}

impl Default for Indices {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl FromIterator<usize> for Indices {
    fn from_iter<I: IntoIterator<Item = usize>>(values: I) -> Self {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Vec<usize>> for Indices {
    fn from(values: Vec<usize>) -> Self {
        Self { values: values.into(), tensors: PerDevice::default() }
    }
}

impl Deref for Indices {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.values
    }
}

impl Indices {
    /// The values as a tensor on `device`.
    pub fn tensor(&self, device: &Device) -> Tensor<1, Int> {
        self.tensors.get_or_make(device, || int_tensor(self.values.iter().copied(), device))
    }
}

/// A vector of integers on `device`.
///
/// # Panics
/// When a value does not fit into an `i64`.
pub fn int_tensor(
    values: impl IntoIterator<Item: TryInto<i64>>,
    device: &Device,
) -> Tensor<1, Int> {
    let values: Vec<i64> = values
        .into_iter()
        .map(|value| value.try_into().unwrap_or_else(|_| panic!("an integer exceeds i64::MAX")))
        .collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
