//! Log-probabilities of targets from hidden states.

use block_transformer_kernels::{TargetScore, TargetScores, columns};
use burn::tensor::{ExecutionError, Tensor};

use crate::linear::project;

/// Number of logits in memory at a time: 64 MiB of f32.
const CHUNK_LOGITS: usize = 1 << 24;

/// Scores one target per row of hidden states. The logits are computed for a few rows at a time,
/// and nothing is read from the device before the last of them.
///
/// If a logit of a row is not finite, the log-probability of that row is not finite either.
///
/// # Shapes
/// - `hidden`: `[rows, width]`
/// - `head`: `[width, vocab]`
/// - `targets`: `[rows]`, each less than `vocab`
///
/// # Errors
/// When the device failed to compute the scores.
pub fn score_targets(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
) -> Result<Vec<TargetScore>, ExecutionError> {
    let [_, width] = hidden.dims();
    let vocab = columns(&head, width);
    score_chunks(hidden, head, targets, (CHUNK_LOGITS / vocab).max(1))
}

fn score_chunks(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
    rows: usize,
) -> Result<Vec<TargetScore>, ExecutionError> {
    let chunks: Vec<TargetScores> = targets
        .chunks(rows)
        .enumerate()
        .map(|(chunk, targets)| {
            let hidden = hidden.clone().narrow(0, chunk * rows, targets.len());
            scores_of(project(hidden, head.clone(), None), targets)
        })
        .collect();
    let mut scores = Vec::with_capacity(targets.len());
    for chunk in chunks {
        scores.extend(chunk.read()?);
    }
    Ok(scores)
}

/// Scores one target per row of logits like [`score_targets`].
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
/// - `targets`: `[rows]`, each less than `vocab`
///
/// # Errors
/// When the device failed to compute the scores.
pub fn score_logits(
    logits: Tensor<2>,
    targets: &[u32],
) -> Result<Vec<TargetScore>, ExecutionError> {
    scores_of(logits, targets).read()
}

fn scores_of(logits: Tensor<2>, targets: &[u32]) -> TargetScores {
    block_transformer_kernels::score_targets(&logits, targets)
        .unwrap_or_else(|| composed(logits, targets))
}

fn composed(logits: Tensor<2>, targets: &[u32]) -> TargetScores {
    let count = targets.len();
    let targets = block_transformer_kernels::int_tensor(targets.iter().copied(), &logits.device());
    let (largest, top) = logits.clone().max_dim_with_indices(1); // [count, 1]
    // both values are small because they are relative to the largest logit, so subtracting the log
    // of the sum loses no precision
    let shifted = logits - largest;
    TargetScores::Device {
        target: shifted.clone().gather(1, targets.reshape([count, 1])).reshape([count]),
        sum: shifted.exp().sum_dim(1).reshape([count]),
        top: top.reshape([count]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn scores_are_the_log_softmax_across_chunks() {
        #[expect(deprecated, reason = "supported for as long as burn has it")]
        for device in [Device::flex(), Device::ndarray()] {
            let vocab = 5000;
            let normal = Distribution::Normal(0.0, 1.0);
            let hidden = Tensor::<2>::random([7, 2], normal, &device);
            let head = Tensor::<2>::random([2, vocab], normal, &device);
            let logits = hidden.clone().matmul(head.clone());
            let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
            let best = |row: &[f64]| (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            let mut targets = vec![0, 1, vocab as u32 - 1, 5, 6, 7];
            targets.push(best(&logits[6 * vocab..]) as u32);
            let scores = score_chunks(hidden, head, &targets, 3).unwrap();
            for ((row, &target), score) in logits.chunks(vocab).zip(&targets).zip(&scores) {
                let total: f64 = row.iter().map(|x| x.exp()).sum();
                let expected = row[target as usize] - total.ln();
                assert!((score.log_prob - expected).abs() < 1e-5, "{score:?}, {expected}");
                assert_eq!(score.top, best(row) as u32);
            }
        }
    }

    #[test]
    fn logits_that_are_not_finite_give_a_log_probability_that_is_not() {
        #[expect(deprecated, reason = "supported for as long as burn has it")]
        for device in [Device::flex(), Device::ndarray()] {
            for bad in [f32::NAN, f32::INFINITY] {
                let hidden = Tensor::<2>::full([1, 1], bad, &device);
                let head = Tensor::<2>::ones([1, 20], &device);
                let scores = score_targets(hidden, head, &[3]).unwrap();
                assert!(!scores[0].log_prob.is_finite(), "{scores:?}");
            }
        }
    }
}
