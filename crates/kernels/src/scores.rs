//! Log-probabilities of targets, on the host or on the device.

use burn::tensor::{ExecutionError, Int, Tensor, Transaction};

/// The score of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetScore {
    /// Log-probability of the target in nats.
    pub log_prob: f64,
    /// The most probable id; of equally probable ids, the lowest.
    pub top: u32,
    /// Its log-probability in nats.
    pub top_log_prob: f64,
}

/// Scores of one target per row of logits.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one value per chunk of logits")]
pub enum TargetScores {
    /// Scores on the host.
    Host(Vec<TargetScore>),
    /// Parts of the scores on the device, `[rows]` each.
    Device {
        /// The logit of the target minus the largest logit of the row.
        target: Tensor<1>,
        /// The sum over the row of `e^(logit - largest logit)`.
        sum: Tensor<1>,
        /// The most probable id; of equally probable ids, the lowest.
        top: Tensor<1, Int>,
    },
}

impl TargetScores {
    /// Reads the scores to the host, in one transfer.
    ///
    /// # Errors
    /// When the device failed to compute them.
    pub fn read(self) -> Result<Vec<TargetScore>, ExecutionError> {
        let (target, sum, top) = match self {
            Self::Host(scores) => return Ok(scores),
            Self::Device { target, sum, top } => (target, sum, top),
        };
        let read = Transaction::default().register(target).register(sum).register(top);
        let read = read.try_execute()?;
        let [target, sum, top] = &read[..] else { unreachable!("three tensors were registered") };
        let logits = target.iter::<f64>().zip(sum.iter::<f64>());
        // the differences to the largest logit are small, and the subtraction in f64 is precise
        // enough
        let score = |((target, sum), top): ((f64, f64), u32)| TargetScore {
            log_prob: target - sum.ln(),
            top,
            top_log_prob: -sum.ln(),
        };
        Ok(logits.zip(top.iter::<u32>()).map(score).collect())
    }
}
