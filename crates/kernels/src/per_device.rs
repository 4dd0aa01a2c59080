//! Values that are made once for each device.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;

/// Values made from host data, one per device that has asked. Clones share them.
#[derive(Clone)]
pub struct PerDevice<T>(Arc<Mutex<Vec<(Device, T)>>>);

impl<T> Default for PerDevice<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> fmt::Debug for PerDevice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerDevice")
    }
}

impl<T: Clone> PerDevice<T> {
    /// Returns the value of `device`, which `make` makes on the first call for that device.
    pub fn get_or_make(&self, device: &Device, make: impl FnOnce() -> T) -> T {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // a device equals itself with autodiff, but their tensors do not mix
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
