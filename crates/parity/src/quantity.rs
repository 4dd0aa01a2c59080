//! Compared quantities and their tolerances.

use burn::tensor::Tensor;

/// The largest difference of one quantity.
#[derive(Clone, Debug)]
pub struct Quantity {
    /// Name of the quantity.
    pub name: String,
    /// Largest difference; for generated ids, the number of ids that differ.
    pub difference: f64,
    /// Largest difference that is allowed.
    pub tolerance: f64,
}

impl Quantity {
    pub(crate) fn new(name: impl Into<String>, difference: f64, tolerance: f64) -> Self {
        Self { name: name.into(), difference, tolerance }
    }

    /// Whether the difference is within tolerance. NaN is not within tolerance.
    pub fn holds(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// Returns the largest difference over the elements for which `counts` is true; NaN if a compared
/// value is NaN or the lengths differ.
pub(crate) fn largest(ours: &[f32], theirs: &[f32], counts: impl Fn(usize) -> bool) -> f64 {
    if ours.len() != theirs.len() {
        return f64::NAN;
    }
    let differences = ours.iter().zip(theirs).enumerate().filter(|(i, _)| counts(*i));
    differences.fold(0.0, |most, (_, (a, b))| {
        let difference = (f64::from(*a) - f64::from(*b)).abs();
        if difference.is_nan() || difference > most { difference } else { most }
    })
}

/// The values of `tensor` on the host, row-major.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
