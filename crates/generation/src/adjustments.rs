//! Bias of logits, and penalties for tokens that a sequence contains already.

use std::collections::HashMap;

use crate::options::Options;
use crate::sampling::Sampling;

/// The changes of the logits of one sequence, before temperature.
///
/// The penalties are those of OpenAI: a token that has been generated `n > 0` times loses `presence + n * frequency`.
#[derive(Clone, Debug)]
pub(crate) struct Adjustments {
    bias: Vec<(u32, f32)>,
    presence: f64,
    frequency: f64,
    /// How often each token has been generated; empty without penalties.
    counts: HashMap<u32, u32>,
}

impl Adjustments {
    /// The adjustments at the start of a sequence.
    pub(crate) fn new(options: &Options) -> Self {
        let Sampling { presence_penalty, frequency_penalty, .. } = options.sampling;
        let bias = options.logit_bias.iter().copied().filter(|(_, bias)| *bias != 0.0);
        Self {
            bias: bias.collect(),
            presence: presence_penalty,
            frequency: frequency_penalty,
            counts: HashMap::new(),
        }
    }

    /// Whether no logit ever changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.bias.is_empty() && !self.penalizes()
    }

    fn penalizes(&self) -> bool {
        self.presence != 0.0 || self.frequency != 0.0
    }

    /// Records a generated token.
    pub(crate) fn count(&mut self, token: u32) {
        if self.penalizes() {
            *self.counts.entry(token).or_default() += 1;
        }
    }

    /// Changes the logits of the first ids; other ids are ignored.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        for &(id, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        for (&id, &count) in &self.counts {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit -= (self.presence + self.frequency * f64::from(count)) as f32;
            }
        }
    }
}
