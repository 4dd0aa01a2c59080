//! Elementary functions without branches or calls. The compiler can therefore vectorize them inside
//! a function that is compiled for several instruction sets.

/// `e^x` within 2 units in the last place; 0 below -87.3.
///
/// Range reduction by a two-part ln 2 and the Taylor polynomial of degree 7 on +-ln(2)/2.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    let low = x < -87.3;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if low { 0.0 } else { p * scale }
}

/// The error function within 1e-6 of its value, by the rational minimax approximation on +-4 that
/// Eigen and XLA use (odd degree 13 over even degree 8).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let mut p = -2.726_142_3e-10;
    for c in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_4e-2,
    ] {
        p = p * s + c;
    }
    let mut q = -1.456_607_2e-5;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        q = q * s + c;
    }
    x * p / q
}

/// Dot product, in 16 running sums.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `y += a * x`
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// Replaces each `x` by `e^(x - shift)`, and returns the sum of the results, in 16 running sums.
#[inline(always)]
pub(crate) fn exp_and_sum(x: &mut [f32], shift: f32) -> f32 {
    let mut sums = [0.0_f32; 16];
    let mut chunks = x.chunks_exact_mut(16);
    for x in &mut chunks {
        for i in 0..16 {
            x[i] = exp(x[i] - shift);
            sums[i] += x[i];
        }
    }
    let mut sum = 0.0;
    for x in chunks.into_remainder() {
        *x = exp(*x - shift);
        sum += *x;
    }
    sums.iter().sum::<f32>() + sum
}

vectorized! {
    /// See [`crate::exp_differences`].
    pub(crate) fn exp_differences(x: &mut [f32], max: f32, scale: f32) {
        for x in x {
            *x = exp((*x - max) * scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::max_of;
    use crate::instruction_set::forced::for_each_set;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let arguments: Vec<f32> = (-87_000..88_000).map(|i| i as f32 * 1e-3).collect();
        for_each_set(|set| {
            let mut powers = arguments.clone();
            exp_differences(&mut powers, 0.0, 1.0);
            for (x, power) in arguments.iter().zip(powers) {
                let expected = f64::from(*x).exp();
                let error = (f64::from(power) - expected).abs() / expected;
                assert!(error < 2.4e-7, "{set}: {x}: {error}");
            }
            let mut ends = [-1e30, 0.0];
            exp_differences(&mut ends, 0.0, 1.0);
            assert_eq!(ends, [0.0, 1.0]);
        });
    }

    #[test]
    fn reductions_equal_plain_loops() {
        for n in [0, 1, 15, 16, 17, 50] {
            let a: Vec<f32> = (0..n).map(|i| i as f32 - 3.0).collect();
            let b: Vec<f32> = (0..n).map(|i| (i % 7) as f32 * 0.5).collect();
            let plain: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            assert_eq!(dot(&a, &b), plain);
            assert_eq!(max_of(&b), b.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut c = b.clone();
            let sum = exp_and_sum(&mut c, 1.0);
            assert!((sum - c.iter().sum::<f32>()).abs() <= 1e-5 * sum);
            assert!(b.iter().zip(&c).all(|(b, c)| (c - (b - 1.0).exp()).abs() < 1e-6));
        }
    }
}
