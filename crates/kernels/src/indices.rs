//! Integers on the host and on devices.

use std::ops::Deref;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::per_device::PerDevice;

/// Positions or slots, as a slice on the host and as a tensor that is created once per device.
///
/// Of [`bounded`](Self::bounded) indices, the host knows upper bounds only. The kernels of CubeCL
/// devices accept them; everything else must not, because it computes with the values on the host.
#[derive(Clone, Debug)]
pub struct Indices {
    /// The values, or their bounds.
    values: Arc<[usize]>,
    tensors: PerDevice<Tensor<1, Int>>,
    /// The values of bounded indices.
    on_device: Option<Box<Tensor<1, Int>>>,
}

impl PartialEq for Indices {
    fn eq(&self, other: &Self) -> bool {
        let known = self.on_device.is_none() && other.on_device.is_none();
        known && self.values == other.values
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
        Self { values: values.into(), tensors: PerDevice::default(), on_device: None }
    }
}

impl Deref for Indices {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.values
    }
}

impl Indices {
    /// Indices whose values are in `tensor` `[count]`. Each is at most the bound at its place.
    pub fn bounded(bounds: Vec<usize>, tensor: Tensor<1, Int>) -> Self {
        assert_eq!(tensor.dims(), [bounds.len()], "one bound per value");
        Self { on_device: Some(Box::new(tensor)), ..bounds.into() }
    }

    /// Whether the host knows upper bounds of the values only.
    pub fn is_bounded(&self) -> bool {
        self.on_device.is_some()
    }

    /// The values as a tensor on `device`.
    pub fn tensor(&self, device: &Device) -> Tensor<1, Int> {
        match &self.on_device {
            Some(tensor) => (**tensor).clone(),
            None => {
                self.tensors.get_or_make(device, || int_tensor(self.values.iter().copied(), device))
            }
        }
    }

    /// Each value times `factor`.
    pub fn times(&self, factor: usize) -> Self {
        if factor == 1 {
            return self.clone();
        }
        let values: Vec<usize> = self.values.iter().map(|value| value * factor).collect();
        match &self.on_device {
            Some(tensor) => Self::bounded(values, (**tensor).clone() * factor as i64),
            None => values.into(),
        }
    }

    /// Each value followed by the `count - 1` integers after it.
    pub fn runs(&self, count: usize) -> Self {
        if count == 1 {
            return self.clone();
        }
        let values: Vec<usize> =
            self.values.iter().flat_map(|&start| start..start + count).collect();
        let Some(tensor) = &self.on_device else { return values.into() };
        let shape = [self.values.len(), count];
        let steps = Tensor::<1, Int>::arange(0..count as i64, &tensor.device());
        let runs = (**tensor).clone().reshape([shape[0], 1]).expand(shape)
            + steps.reshape([1, count]).expand(shape);
        Self::bounded(values, runs.reshape([shape[0] * count]))
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
