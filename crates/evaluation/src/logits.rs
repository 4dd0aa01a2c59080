//! Log-probabilities of targets from hidden states, a few rows of logits at a time.

use block_transformer_layers::project;
use burn::tensor::{Int, Tensor, TensorData};

use crate::EvalError;

/// Logits held at a time: 64 MiB of f32.
const LOGITS: usize = 1 << 24;

/// What the LM head says of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TargetScore {
    /// Its log-probability in nats.
    pub log_prob: f64,
    /// Whether no token is more probable.
    pub greedy: bool,
}

/// Scores `targets`, one a row of `hidden`.
///
/// # Shapes
/// - `hidden`: `[rows, width]`
/// - `head`: `[width, vocab]`
///
/// # Errors
/// When a logit is not finite, or the device refuses.
pub(crate) fn score_targets(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
) -> Result<Vec<TargetScore>, EvalError> {
    let ([rows, _], [_, vocab]) = (hidden.dims(), head.dims());
    let device = hidden.device();
    let mut scores = Vec::with_capacity(rows);
    let at_once = (LOGITS / vocab).max(1);
    for (chunk, targets) in targets.chunks(at_once).enumerate() {
        let count = targets.len();
        let ids: Vec<i64> = targets.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [count, 1]), &device);
        let hidden = hidden.clone().narrow(0, chunk * at_once, count);
        let logits = project(hidden, head.clone(), None); // [count, vocab]
        if let Some(chunk) = block_transformer_kernels::score_targets(&logits, targets) {
            for (score, &id) in chunk.iter().zip(targets) {
                let log_prob = score.log_prob;
                if !log_prob.is_finite() {
                    return Err(EvalError::NotFinite);
                }
                scores.push(TargetScore { log_prob, greedy: score.top == id });
            }
            continue;
        }
        let (top, at) = logits.clone().max_dim_with_indices(1); // [count, 1]
        // below the top the numbers are small, and what is subtracted on the host is exact
        let shifted = logits - top;
        let target = floats(shifted.clone().gather(1, ids))?;
        let total = floats(shifted.exp().sum_dim(1))?;
        let at = at.try_into_data().map_err(|e| EvalError::Device(e.to_string()))?;
        for (((target, total), at), &id) in
            target.into_iter().zip(total).zip(at.iter::<i64>()).zip(targets)
        {
            let log_prob = target - total.ln();
            if !log_prob.is_finite() {
                return Err(EvalError::NotFinite);
            }
            scores.push(TargetScore { log_prob, greedy: at == i64::from(id) });
        }
    }
    Ok(scores)
}

fn floats(tensor: Tensor<2>) -> Result<Vec<f64>, EvalError> {
    let data = tensor.try_into_data().map_err(|e| EvalError::Device(e.to_string()))?;
    Ok(data.iter::<f64>().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn scores_are_the_log_softmax_across_chunks() {
        let device = Device::flex();
        let vocab = LOGITS / 3;
        let normal = Distribution::Normal(0.0, 1.0);
        let hidden = Tensor::<2>::random([7, 2], normal, &device);
        let head = Tensor::<2>::random([2, vocab], normal, &device);
        let logits = hidden.clone().matmul(head.clone());
        let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
        let mut targets = vec![0, 1, vocab as u32 - 1, 5, 6, 7];
        let best = |row: &[f64]| (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        targets.push(best(&logits[6 * vocab..]) as u32);
        let scores = score_targets(hidden, head, &targets).unwrap();
        for ((row, &target), score) in logits.chunks(vocab).zip(&targets).zip(&scores) {
            let total: f64 = row.iter().map(|x| x.exp()).sum();
            let expected = row[target as usize] - total.ln();
            assert!((score.log_prob - expected).abs() < 1e-5, "{score:?}, {expected}");
        }
        assert!(scores[6].greedy && !scores[0].greedy);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let device = Device::flex();
        for bad in [f32::NAN, f32::INFINITY] {
            let hidden = Tensor::<2>::full([1, 1], bad, &device);
            let head = Tensor::<2>::ones([1, 20], &device);
            let result = score_targets(hidden, head, &[3]);
            assert!(matches!(result, Err(EvalError::NotFinite)), "{result:?}");
        }
    }
}
