//! Values that are created once per device.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;

/// Values created from host data, one per device that has requested one. Clones share them.
#[derive(Clone, Debug)]
pub struct PerDevice<T>(Arc<Mutex<Vec<(Device, T)>>>);

impl<T> Default for PerDevice<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> PerDevice<T> {
    /// Returns the value of `device`. On the first call for that device, `make` creates it.
    pub fn get_or_make(&self, device: &Device, make: impl FnOnce() -> T) -> T {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // a device with autodiff compares equal to the one without, but their tensors cannot be
        // mixed
        let same = |(known, _): &&(Device, T)| {
            known == device && known.is_autodiff() == device.is_autodiff()
        };
        if let Some((_, value)) = made.iter().find(same) {
            return value.clone();
        }
        let value = make();
        made.push((device.clone(), value.clone()));
        value
    }
}
