//! Log-probabilities of targets from hidden states.

use burn::tensor::Tensor;

use crate::EvalError;

/// What the LM head says of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TargetScore {
    /// Its log-probability in nats.
    pub log_prob: f64,
    /// Whether no token is more probable.
    pub greedy: bool,
}

/// Scores `targets`, one per row of `hidden`.
///
/// # Shapes
/// - `hidden`: `[rows, width]`
/// - `head`: `[width, vocab]`
///
/// # Errors
/// When a logit is not finite, or the device failed.
pub(crate) fn score_targets(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
) -> Result<Vec<TargetScore>, EvalError> {
    let scores = block_transformer_layers::score_targets(hidden, head, targets)
        .map_err(|e| EvalError::Device(e.to_string()))?;
    let finite = |(score, &id): (&block_transformer_layers::TargetScore, &u32)| {
        let log_prob = score.log_prob;
        if !log_prob.is_finite() {
            return Err(EvalError::NotFinite);
        }
        Ok(TargetScore { log_prob, greedy: score.top == id })
    };
    scores.iter().zip(targets).map(finite).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

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
