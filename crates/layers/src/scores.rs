//! Log-probabilities of targets from hidden states.

use block_transformer_kernels::{TargetScore, TargetScores, TokenLogProbs, columns, most_likely};
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
    let rows = chunk_rows(&hidden, &head);
    score_chunks(hidden, head, targets, rows)
}

/// Scores targets like [`score_targets`], with the same log-probabilities, and finds the `top` most probable ids
/// of each row. With more than one on another device than burn-flex, the logits of each chunk are read from the
/// device.
///
/// # Shapes
/// - `hidden`: `[rows, width]`
/// - `head`: `[width, vocab]`
/// - `targets`: `[rows]`, each less than `vocab`
///
/// # Errors
/// When the device failed to compute the scores.
pub fn score_tokens(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
    top: usize,
) -> Result<Vec<TokenLogProbs>, ExecutionError> {
    let rows = chunk_rows(&hidden, &head);
    score_token_chunks(hidden, head, targets, top, rows)
}

/// Rows whose logits are in memory at a time.
fn chunk_rows(hidden: &Tensor<2>, head: &Tensor<2>) -> usize {
    let [_, width] = hidden.dims();
    (CHUNK_LOGITS / columns(head, width)).max(1)
}

/// The logits of at most `rows` rows at a time, with their targets.
fn chunks(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
    rows: usize,
) -> impl Iterator<Item = (Tensor<2>, &[u32])> {
    targets.chunks(rows).enumerate().map(move |(chunk, targets)| {
        let hidden = hidden.clone().narrow(0, chunk * rows, targets.len());
        (project(hidden, head.clone(), None), targets)
    })
}

fn score_chunks(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
    rows: usize,
) -> Result<Vec<TargetScore>, ExecutionError> {
    let chunks: Vec<TargetScores> = chunks(hidden, head, targets, rows)
        .map(|(logits, targets)| scores_of(logits, targets))
        .collect();
    let mut scores = Vec::with_capacity(targets.len());
    for chunk in chunks {
        scores.extend(chunk.read()?);
    }
    Ok(scores)
}

fn score_token_chunks(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
    top: usize,
    rows: usize,
) -> Result<Vec<TokenLogProbs>, ExecutionError> {
    let mut scores = Vec::with_capacity(targets.len());
    for (logits, targets) in chunks(hidden, head, targets, rows) {
        scores.extend(score_token_logits(logits, targets, top)?);
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

/// Scores one target per row of logits like [`score_tokens`].
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
/// - `targets`: `[rows]`, each less than `vocab`
///
/// # Errors
/// When the device failed to compute the scores.
pub fn score_token_logits(
    logits: Tensor<2>,
    targets: &[u32],
    top: usize,
) -> Result<Vec<TokenLogProbs>, ExecutionError> {
    if let Some(scores) = block_transformer_kernels::score_tokens(&logits, targets, top) {
        return Ok(scores);
    }
    let [_, vocab] = logits.dims();
    let (scores, shifted) = composed(logits, targets);
    let scores = scores.read()?.into_iter();
    if top <= 1 {
        let one = |score: TargetScore| TokenLogProbs {
            log_prob: score.log_prob,
            top: vec![(score.top, score.top_log_prob); top],
        };
        return Ok(scores.map(one).collect());
    }
    let shifted: Vec<f32> = shifted.try_into_data()?.iter::<f32>().collect();
    let one = |(score, shifted): (TargetScore, &[f32])| {
        let log_prob = |id: u32| f64::from(shifted[id as usize]) + score.top_log_prob;
        let top = most_likely(shifted, top).into_iter();
        TokenLogProbs { log_prob: score.log_prob, top: top.map(|id| (id, log_prob(id))).collect() }
    };
    Ok(scores.zip(shifted.chunks(vocab)).map(one).collect())
}

fn scores_of(logits: Tensor<2>, targets: &[u32]) -> TargetScores {
    block_transformer_kernels::score_targets(&logits, targets)
        .unwrap_or_else(|| composed(logits, targets).0)
}

/// The scores, and each logit minus the largest one of its row.
fn composed(logits: Tensor<2>, targets: &[u32]) -> (TargetScores, Tensor<2>) {
    let count = targets.len();
    let targets = block_transformer_kernels::int_tensor(targets.iter().copied(), &logits.device());
    let (largest, top) = logits.clone().max_dim_with_indices(1); // [count, 1]
    // both values are small because they are relative to the largest logit, so subtracting the log
    // of the sum loses no precision
    let shifted = logits - largest;
    let scores = TargetScores::Device {
        target: shifted.clone().gather(1, targets.reshape([count, 1])).reshape([count]),
        sum: shifted.clone().exp().sum_dim(1).reshape([count]),
        top: top.reshape([count]),
    };
    (scores, shifted)
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
            let scores = score_chunks(hidden.clone(), head.clone(), &targets, 3).unwrap();
            for ((row, &target), score) in logits.chunks(vocab).zip(&targets).zip(&scores) {
                let total: f64 = row.iter().map(|x| x.exp()).sum();
                let expected = row[target as usize] - total.ln();
                assert!((score.log_prob - expected).abs() < 1e-5, "{score:?}, {expected}");
                assert_eq!(score.top, best(row) as u32);
            }
            for top in [0, 1, 2, 20, vocab + 1] {
                let (hidden, head) = (hidden.clone(), head.clone());
                let tokens = score_token_chunks(hidden, head, &targets, top, 3).unwrap();
                assert_eq!(tokens.len(), targets.len());
                for (row, (token, score)) in tokens.iter().zip(&scores).enumerate() {
                    assert_eq!(token.log_prob.to_bits(), score.log_prob.to_bits());
                    assert_eq!(token.top.len(), top.min(vocab));
                    assert!(token.top.first().is_none_or(|(id, _)| *id == score.top));
                    assert!(token.top.is_sorted_by(|a, b| a.1 >= b.1));
                    for &(id, log_prob) in token.top.iter().take(20) {
                        let difference = logits[row * vocab + id as usize]
                            - logits[row * vocab + targets[row] as usize];
                        assert!((log_prob - score.log_prob - difference).abs() < 1e-5);
                    }
                    // the same number, so that users can compare them
                    if let Some((_, own)) = token.top.iter().find(|(id, _)| *id == targets[row]) {
                        assert_eq!(own.to_bits(), token.log_prob.to_bits());
                    }
                    let is_in_top = token.top.iter().any(|(id, _)| *id == targets[row]);
                    assert!(is_in_top || top < vocab && (row < 6 || top == 0));
                }
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
