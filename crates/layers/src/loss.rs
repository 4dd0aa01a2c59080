//! Cross-entropy over tokens.

use burn::tensor::{Bool, Int, Tensor, activation::log_softmax};

/// Negative log-likelihood in nats of each target.
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
/// - `targets`: `[rows]`
/// - output: `[rows]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, _] = logits.dims();
    log_softmax(logits, 1).gather(1, targets.reshape([rows, 1])).reshape([rows]).neg()
}

/// Sum of `losses` where `real` is true, and how many that is, both `[1]`.
pub fn token_mean(losses: Tensor<1>, real: Tensor<1, Bool>) -> (Tensor<1>, Tensor<1>) {
    let weights = real.float();
    ((losses * weights.clone()).sum(), weights.sum())
}
