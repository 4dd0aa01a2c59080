//! Settings of the choice of tokens.

use crate::error::GenerationError;

/// The largest absolute value of a penalty.
const MOST_PENALTY: f64 = 2.0;

/// How a token is chosen. The penalties are applied first, then the temperature, `min_p`, `top_k` and `top_p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits. With 0, the most likely token is chosen, and with any value whose inverse is too
    /// large for f32 (below about 3e-39).
    pub temperature: f64,
    /// Draws from this many of the most likely tokens; `None` draws from all.
    pub top_k: Option<usize>,
    /// Draws from the smallest set of most likely tokens whose probabilities sum to at least this
    /// value (nucleus sampling, Holtzman et al., arXiv 1904.09751); `None` draws from all tokens.
    pub top_p: Option<f64>,
    /// Draws from the tokens whose probability is at least this part of the largest one (Nguyen et al., arXiv
    /// 2407.01082); `None` draws from all tokens.
    pub min_p: Option<f64>,
    /// Subtracted from the logits of all tokens that the sequence has generated so far. From -2 to 2; 0 changes
    /// nothing.
    pub presence_penalty: f64,
    /// Subtracted from the logit of a token for each time that the sequence has generated it so far. From -2 to 2; 0
    /// changes nothing.
    pub frequency_penalty: f64,
    /// Seed of the random number generator, whose stream is
    /// [`Options::rng_stream`](crate::Options::rng_stream).
    pub seed: u64,
}

impl Sampling {
    /// Always chooses the most likely token; of equally likely tokens, the one with the lowest id.
    pub fn greedy() -> Self {
        Self::at(0.0, 0)
    }

    /// Draws from all tokens at `temperature`.
    pub fn at(temperature: f64, seed: u64) -> Self {
        Self {
            temperature,
            top_k: None,
            top_p: None,
            min_p: None,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed,
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn check(&self) -> Result<(), GenerationError> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(GenerationError::Temperature(self.temperature));
        }
        if self.top_k == Some(0) {
            return Err(GenerationError::TopK);
        }
        if let Some(p) = self.top_p.filter(|&p| !(p > 0.0 && p <= 1.0)) {
            return Err(GenerationError::TopP(p));
        }
        if let Some(p) = self.min_p.filter(|p| !(0.0..=1.0).contains(p)) {
            return Err(GenerationError::MinP(p));
        }
        let penalties = [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ];
        let outside = |(_, value): &(&str, f64)| !(-MOST_PENALTY..=MOST_PENALTY).contains(value);
        match penalties.into_iter().find(outside) {
            Some((name, value)) => Err(GenerationError::Penalty { name, value }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused() {
        for (sampling, part) in [
            (Sampling::at(-1.0, 0), "temperature -1"),
            (Sampling::at(f64::NAN, 0), "temperature NaN"),
            (Sampling { top_k: Some(0), ..Sampling::greedy() }, "top_k 0"),
            (Sampling { top_p: Some(0.0), ..Sampling::greedy() }, "top_p 0"),
            (Sampling { top_p: Some(1.5), ..Sampling::greedy() }, "top_p 1.5"),
            (Sampling { min_p: Some(-0.1), ..Sampling::greedy() }, "min_p -0.1"),
            (Sampling { min_p: Some(1.1), ..Sampling::greedy() }, "min_p 1.1"),
            (Sampling { min_p: Some(f64::NAN), ..Sampling::greedy() }, "min_p NaN"),
            (
                Sampling { presence_penalty: 2.1, ..Sampling::greedy() },
                "presence_penalty 2.1: must be from -2 to 2",
            ),
            (
                Sampling { frequency_penalty: f64::NAN, ..Sampling::greedy() },
                "frequency_penalty NaN",
            ),
        ] {
            let error = sampling.check().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let ends = Sampling {
            top_p: Some(1.0),
            min_p: Some(1.0),
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            ..Sampling::at(1.0, 0)
        };
        ends.check().unwrap();
        Sampling { min_p: Some(0.0), ..ends }.check().unwrap();
    }
}
