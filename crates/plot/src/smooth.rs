//! Smoothing of noisy lines.

/// Returns the exponential moving average of `points` over about `window` points, corrected for the
/// bias at its start.
pub fn smoothed(points: &[(f64, f64)], window: f64) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / window.max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let average = |&(x, y): &(f64, f64)| {
        sum = sum * keep + y;
        weight = weight * keep + 1.0;
        (x, sum / weight)
    };
    points.iter().map(average).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_flattens_a_sawtooth() {
        let flat: Vec<_> = (0..5).map(|i| (f64::from(i), 2.0)).collect();
        assert!(smoothed(&flat, 4.0).iter().all(|p| (p.1 - 2.0).abs() < 1e-12));
        let saw: Vec<_> = (0..200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert!((smoothed(&saw, 20.0)[199].1 - 0.5).abs() < 0.05);
    }
}
