//! Means over seeds and their intervals.

/// Quantiles of Student's t distribution at 97.5%, for 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
/// That of the normal distribution.
const Z: f64 = 1.959_964;

/// Returns the quantile at 97.5% for `degrees` of freedom; `None` for none.
fn quantile(degrees: usize) -> Option<f64> {
    let index = degrees.checked_sub(1)?;
    let many = || {
        // Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5
        let degrees = degrees as f64;
        let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
        Z + (Z.powi(3) + Z) / 4.0 / degrees + second / degrees.powi(2)
    };
    Some(T.get(index).copied().unwrap_or_else(many))
}

/// The standard deviation between seeds, pooled over groups of runs that differ in their seed only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pooled {
    squares: f64,
    degrees: usize,
}

impl Pooled {
    /// Pools the groups.
    pub(crate) fn of<'a>(groups: impl IntoIterator<Item = &'a [f64]>) -> Self {
        groups.into_iter().fold(Self::default(), |pooled, group| {
            let mean = mean(group);
            let squares: f64 = group.iter().map(|value| (value - mean).powi(2)).sum();
            Self {
                squares: pooled.squares + squares,
                degrees: pooled.degrees + group.len().saturating_sub(1),
            }
        })
    }

    /// The standard deviation between seeds; `None` if no group has two runs.
    pub(crate) fn deviation(&self) -> Option<f64> {
        (self.degrees > 0).then(|| (self.squares / self.degrees as f64).sqrt())
    }

    /// The degrees of freedom.
    pub(crate) fn degrees(&self) -> usize {
        self.degrees
    }

    /// The share of a group in the sum of squared deviations.
    pub(crate) fn share(&self, group: &[f64]) -> f64 {
        Self::of([group]).squares / self.squares
    }

    /// Returns the half-width of the 95% interval of a sum or difference of means over groups of these sizes;
    /// `None` if no group has two runs.
    pub(crate) fn half(&self, sizes: &[usize]) -> Option<f64> {
        let t = quantile(self.degrees)?;
        let deviation = self.deviation()?;
        let parts: f64 = sizes.iter().map(|&size| 1.0 / size as f64).sum();
        Some(t * deviation * parts.sqrt())
    }
}

/// Returns the mean.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_a_t_test_with_a_pooled_deviation() {
        let groups: [&[f64]; 3] = [&[1.0, 3.0], &[5.0, 5.0, 8.0], &[7.0]];
        let pooled = Pooled::of(groups);
        // squares 2 + 6 over 1 + 2 degrees
        let deviation = (8.0_f64 / 3.0).sqrt();
        let expected = 3.182 * deviation * (0.5_f64 + 1.0 / 3.0).sqrt();
        assert!((pooled.half(&[2, 3]).unwrap() - expected).abs() < 1e-12);
        assert_eq!(Pooled::of([&[1.0][..], &[2.0]]).half(&[1, 1]), None);
        assert!((pooled.share(&[1.0, 3.0]) - 0.25).abs() < 1e-12);
        assert!((quantile(31).unwrap() - 2.0395).abs() < 1e-4);
        assert!((quantile(60).unwrap() - 2.0003).abs() < 1e-4);
    }
}
