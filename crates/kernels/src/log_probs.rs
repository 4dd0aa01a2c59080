//! Log-probabilities of a token and of the most likely tokens, on the host.

use crate::flex::exp_sum;
use crate::host::max_of;

/// Logits that are compared with the least likely token found so far in one step.
const PART: usize = 64;

/// Natural logarithms of a model's probabilities at one position, over all ids of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLogProbs {
    /// That of the token at this position. It is not finite if a logit is not.
    pub log_prob: f32,
    /// The most likely tokens with theirs, in falling order; of equally likely tokens, the one with the lowest id
    /// comes first. The number is the same as [`log_prob`](Self::log_prob) for the token itself.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogProbs {
    /// The log-probability of `token` and those of the `top` most likely ids of a row of logits. There are fewer if
    /// the row has fewer ids.
    ///
    /// # Panics
    /// When `token` is not less than the length of `logits`.
    pub fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let (largest, sum) = exp_sum(logits);
        let log_prob = |id: u32| log_prob(logits[id as usize], largest, sum) as f32;
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
