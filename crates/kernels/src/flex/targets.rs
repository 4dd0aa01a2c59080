//! Log-probabilities of targets, in one pass over the logits.

use burn::backend::Flex;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::host::max_of;
use crate::log_probs::{TokenLogProbs, log_prob};
use crate::scores::{TargetScore, TargetScores};

use super::parts::{contiguous, values};
use super::simd::math::exp;

/// See [`crate::score_targets`].
pub(crate) fn score_targets(logits: &Tensor<2>, targets: &[u32]) -> Option<TargetScores> {
    let score = |row: &[f32], target: u32| {
        let (largest, sum) = exp_sum(row);
        TargetScore {
            log_prob: log_prob(row[target as usize], largest, sum),
            top: row.iter().position(|&x| x == largest).unwrap_or_default() as u32,
            top_log_prob: log_prob(largest, largest, sum),
        }
    };
    of_rows(logits, targets, score).map(TargetScores::Host)
}

/// See [`crate::score_tokens`].
pub(crate) fn score_tokens(
    logits: &Tensor<2>,
    targets: &[u32],
    top: usize,
) -> Option<Vec<TokenLogProbs>> {
    of_rows(logits, targets, |row, target| TokenLogProbs::of(row, target, top))
}

/// Calls `score` with each row and its target.
fn of_rows<S: Send>(
    logits: &Tensor<2>,
    targets: &[u32],
    score: impl Fn(&[f32], u32) -> S + Sync,
) -> Option<Vec<S>> {
    if logits.is_autodiff() {
        return None;
    }
    let [rows, vocab] = logits.dims();
    assert_eq!(rows, targets.len(), "one target per row");
    let logits = contiguous(&logits.clone().try_into_primitive::<Flex>().ok()?)?;
    let rows = values(&logits).par_chunks_exact(vocab).zip(targets);
    Some(rows.map(|(row, &target)| score(row, target)).collect())
}

vectorized! {
    /// Returns the largest logit, and the sum of `e^(x - largest)`. Parts of 1024 logits are summed in
    /// 16 running f32 sums; these are added in f64.
    pub(crate) fn exp_sum(row: &[f32]) -> (f32, f64) {
        let largest = max_of(row);
        let mut sum = 0.0;
        for part in row.chunks(1 << 10) {
            let mut sums = [0.0_f32; 16];
            let chunks = part.chunks_exact(16);
            let rest: f32 = chunks.remainder().iter().map(|x| exp(x - largest)).sum();
            for x in chunks {
                for i in 0..16 {
                    sums[i] += exp(x[i] - largest);
                }
            }
            sum += sums.iter().map(|&x| f64::from(x)).sum::<f64>() + f64::from(rest);
        }
        (largest, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_set::forced::for_each_set;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn scores_are_the_log_softmax_and_its_top() {
        let vocab = 40_009;
        let logits =
            Tensor::<2>::random([5, vocab], Distribution::Normal(0.0, 3.0), &Device::flex());
        let plain: Vec<f64> = logits.to_data().iter::<f64>().collect();
        let best = |row: usize| {
            let row = &plain[row * vocab..][..vocab];
            (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32
        };
        let targets = [0, 7, vocab as u32 - 1, 20_000, best(4)];
        for_each_set(|_| {
            let scores = score_targets(&logits, &targets).unwrap().read().unwrap();
            for (row, (score, target)) in scores.iter().zip(targets).enumerate() {
                let of_row = &plain[row * vocab..][..vocab];
                let total: f64 = of_row.iter().map(|x| x.exp()).sum();
                let expected = of_row[target as usize] - total.ln();
                // a term's error is at most 2.4e-7 (exp) and 4.8e-7 (its argument, down to -16); 64 running
                // additions and the average over the terms keep the sum's below that
                assert!((score.log_prob - expected).abs() < 1e-6, "{score:?} {expected}");
                assert_eq!(score.top, best(row));
            }
        });
    }
}
