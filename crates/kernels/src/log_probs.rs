//! Log-probabilities of a token and of the most likely tokens, on the host.

use crate::flex::exp_sum;
use crate::host::max_of;

/// Logits that are compared with the least likely token found so far in one step.
const PART: usize = 64;

/// Natural logarithms of a model's probabilities at one position, over all ids of the model. In f32, their rounding would
/// add up to more than 1e-5 over a hundred tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLogProbs {
    /// That of the token at this position. It is not finite if a logit is not.
    pub log_prob: f64,
    /// The most likely tokens with theirs, in falling order; of equally likely tokens, the one with the lowest id
    /// comes first. The number is the same as [`log_prob`](Self::log_prob) for the token itself.
    pub top: Vec<(u32, f64)>,
}

impl TokenLogProbs {
    /// The log-probability of `token` and those of the `top` most likely ids of a row of logits. There are fewer if
    /// the row has fewer ids.
    ///
    /// # Panics
    /// When `token` is not less than the length of `logits`.
    pub fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let (largest, sum) = exp_sum(logits);
        let log_prob = |id: u32| log_prob(logits[id as usize], largest, sum);
        let top = most_likely(logits, top);
        Self {
            log_prob: log_prob(token),
            top: top.into_iter().map(|id| (id, log_prob(id))).collect(),
        }
    }
}

/// The log-probability of a token with this logit in a row with this largest logit and sum of `e^(x - largest)`.
pub(crate) fn log_prob(logit: f32, largest: f32, sum: f64) -> f64 {
    // in f64 the difference of two f32 values is exact; in f32 it would be rounded to 1e-6 at -20
    f64::from(logit) - f64::from(largest) - sum.ln()
}

/// The ids of the `count` largest logits in falling order, lower ids first among equals. NaN is left out.
pub fn most_likely(logits: &[f32], count: usize) -> Vec<u32> {
    let count = count.min(logits.len());
    let mut best: Vec<u32> = Vec::with_capacity(count + 1);
    if count == 0 {
        return best;
    }
    // most parts have no logit that is large enough
    for (part, values) in logits.chunks(PART).enumerate() {
        let least = |best: &[u32]| match best.len() == count {
            true => logits[best[count - 1] as usize],
            false => f32::NEG_INFINITY,
        };
        if best.len() == count && max_of(values) <= least(&best) {
            continue;
        }
        for (id, &logit) in (part * PART..).zip(values) {
            let is_larger = best.len() < count && !logit.is_nan() || logit > least(&best);
            if is_larger {
                let at = best.partition_point(|&known| logits[known as usize] >= logit);
                best.insert(at, id as u32);
                best.truncate(count);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from -1 to 1.
    fn numbers(count: usize) -> impl Iterator<Item = f32> {
        let next = |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let all = std::iter::successors(Some(count as u64), next).skip(1);
        all.map(|x| (x >> 40) as f32 / (1 << 23) as f32 - 1.0).take(count)
    }

    #[test]
    fn the_most_likely_ids_are_the_front_of_a_stable_sort() {
        // many equal logits, few, and rows that only rise or fall
        let rows = [(5, 10.0), (1000, 7.0), (1000, 1e6), (63, 1e6), (64, 3.0), (129, 2.0)];
        let mut rows: Vec<Vec<f32>> = rows
            .map(|(length, steps)| numbers(length).map(|x| (x * steps).round()).collect())
            .into();
        rows.push((0..300).map(|i| i as f32).collect());
        rows.push((0..300).map(|i| -i as f32).collect());
        rows.push(vec![0.0, -0.0, f32::NEG_INFINITY, 0.0]);
        for row in rows {
            let mut sorted: Vec<u32> = (0..row.len() as u32).collect();
            sorted.sort_by(|&a, &b| row[b as usize].partial_cmp(&row[a as usize]).unwrap());
            for count in [0, 1, 2, 5, 20, row.len(), row.len() + 1] {
                assert_eq!(most_likely(&row, count), sorted[..count.min(row.len())], "{count}");
            }
        }
        assert_eq!(most_likely(&[f32::NAN, 1.0, f32::NAN, 2.0], 3), [3, 1]);
        assert_eq!(most_likely(&[], 3), [0; 0]);
    }

    #[test]
    fn log_probabilities_are_the_log_softmax() {
        let logits: Vec<f32> = numbers(5000).map(|x| 9.0 * x).collect();
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        let expected = |id: u32| f64::from(logits[id as usize]) - total.ln();
        let found = TokenLogProbs::of(&logits, 7, 20);
        // the relative error of a term is at most 1e-6
        assert!((found.log_prob - expected(7)).abs() < 1e-6, "{found:?}");
        assert_eq!(found.top.len(), 20);
        for (i, &(id, log_prob)) in found.top.iter().enumerate() {
            assert!((log_prob - expected(id)).abs() < 1e-6, "{found:?}");
            assert!(i == 0 || log_prob <= found.top[i - 1].1);
            // the same number for the token itself
            let own = TokenLogProbs::of(&logits, id, 0);
            assert_eq!((own.log_prob, own.top), (log_prob, vec![]));
        }
        let ties = TokenLogProbs::of(&[1.0, 3.0, 3.0, 1.0], 2, 3);
        assert_eq!(ties.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(ties.log_prob, ties.top[0].1);
        assert!(!TokenLogProbs::of(&[0.0, f32::NAN, 1.0], 0, 1).log_prob.is_finite());
    }
}
