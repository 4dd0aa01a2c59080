//! Sets and draws of weights, on the host.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Number of weights that are summed in f32; these partial sums are added in f64.
const F32_SUM: usize = 256;

/// Keeps the smallest set of largest weights whose `measure` sums to at least `enough`, and sets the
/// others to 0. Among equal weights, lower ids are kept first.
///
/// This avoids sorting all weights. Positive floats are ordered by their leading bits. One pass
/// sums the measures of the weights in each bucket of equal leading bits. Then the buckets are
/// added from the largest one down, until the sum reaches `enough`. Only the weights of the last
/// bucket are sorted.
pub(crate) fn keep_largest(weights: &mut [f32], enough: f64, measure: impl Fn(f32) -> f64) {
    // the sign, the exponent and 5 bits of the fraction
    let bucket = |weight: f32| (weight.to_bits() >> 18) as usize;
    let mut buckets = vec![0.0; 1 << 13];
    for &weight in weights.iter().filter(|weight| **weight > 0.0) {
        buckets[bucket(weight)] += measure(weight);
    }
    let mut left = enough;
    let last = buckets.iter().rposition(|&held| {
        let reached = held >= left;
        left -= if reached { 0.0 } else { held };
        reached
    });
    // all weights together are less than `enough`: keep them all
    let Some(last) = last else { return };
    let mut within: Vec<usize> =
        (0..weights.len()).filter(|&id| weights[id] > 0.0 && bucket(weights[id]) == last).collect();
    within.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let kept = within.iter().position(|&id| {
        left -= measure(weights[id]);
        left <= 0.0
    });
    for &id in &within[kept.map_or(within.len(), |kept| kept + 1)..] {
        weights[id] = 0.0;
    }
    for weight in weights.iter_mut().filter(|weight| **weight > 0.0) {
        if bucket(*weight) < last {
            *weight = 0.0;
        }
    }
}

/// Returns the sum of the positive weights; NaN counts as 0.
pub(crate) fn sum(weights: &[f32]) -> f64 {
    let positive = |weight: f32| if weight > 0.0 { weight } else { 0.0 };
    let of_chunk = |chunk: &[f32]| {
        let mut sums = [0.0_f32; 16];
        let (lanes, rest) = chunk.as_chunks::<16>();
        for weights in lanes {
            for (sum, &weight) in sums.iter_mut().zip(weights) {
                *sum += positive(weight);
            }
        }
        sums.iter().chain(rest).map(|&weight| f64::from(positive(weight))).sum::<f64>()
    };
    weights.chunks(F32_SUM).map(of_chunk).sum()
}

/// Draws an index in proportion to the positive weights; NaN counts as 0.
pub(crate) fn draw(rng: &mut ChaCha8Rng, weights: &[f32]) -> Option<usize> {
    let sums: Vec<f64> = weights.chunks(F32_SUM).map(sum).collect();
    let mut left = rng.random::<f64>() * sums.iter().sum::<f64>();
    let mut last = None;
    for (chunk, sum) in sums.iter().enumerate() {
        let start = chunk * F32_SUM;
        if left >= *sum {
            left -= sum;
            continue;
        }
        for (place, &weight) in (start..).zip(&weights[start..]).take(F32_SUM) {
            if weight > 0.0 {
                last = Some(place);
                left -= f64::from(weight);
                if left < 0.0 {
                    return last;
                }
            }
        }
    }
    // rounding put the draw beyond the last weight
    last.or_else(|| weights.iter().rposition(|&weight| weight > 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn keep_largest_keeps_the_front_of_the_sorted_weights() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for round in 0..200 {
            // peaked, flat, and with many equal weights
            let spread = [20.0, 1e-3, 3.0][round % 3];
            let steps = if round % 3 == 2 { 4.0 } else { 1e6 };
            let one = |random: &mut ChaCha8Rng| {
                let x = (random.random::<f32>() * steps).floor() / steps;
                (-spread * x).exp()
            };
            let mut weights: Vec<f32> = (0..1000).map(|_| one(&mut random)).collect();
            weights[7] = f32::NAN;
            weights[8] = 0.0;
            let mut sorted: Vec<usize> = (0..1000).filter(|&id| weights[id] > 0.0).collect();
            sorted.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
            let kept = |weights: &[f32]| -> Vec<usize> {
                (0..weights.len()).filter(|&id| weights[id] > 0.0).collect()
            };
            for k in [1, 10, 997, 998, 2000] {
                let mut some = weights.clone();
                keep_largest(&mut some, k as f64, |_| 1.0);
                let mut expected = sorted[..k.min(998)].to_vec();
                expected.sort_unstable();
                assert_eq!(kept(&some), expected);
            }
            for p in [0.01, 0.5, 0.97] {
                let enough = p * sum(&weights);
                let mut some = weights.clone();
                keep_largest(&mut some, enough, f64::from);
                let some = kept(&some);
                let mut front = sorted[..some.len()].to_vec();
                let held =
                    |ids: &[usize]| ids.iter().map(|&id| f64::from(weights[id])).sum::<f64>();
                let slack = 1e-6 * enough;
                assert!(held(&front) >= enough - slack);
                assert!(held(&front[..front.len() - 1]) < enough + slack);
                front.sort_unstable();
                assert_eq!(some, front);
            }
        }
    }
}
