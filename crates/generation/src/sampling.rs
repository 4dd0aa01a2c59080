//! Choosing a token from a row of logits, on the host.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{GenerationError, PAD};

/// How a token is chosen: temperature first, then `top_k`, then `top_p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Draw from this many of the most likely tokens only.
    pub top_k: Option<usize>,
    /// Draw from the fewest most likely tokens that together have at least this probability.
    pub top_p: Option<f64>,
    /// With the index of the prompt, what every draw depends on.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token; of equals, that of the lowest id.
    pub fn greedy() -> Self {
        Self::at(0.0, 0)
    }

    /// Draws from all tokens at `temperature`.
    pub fn at(temperature: f64, seed: u64) -> Self {
        Self { temperature, top_k: None, top_p: None, seed }
    }

    /// # Errors
    /// When a value is out of its range.
    pub fn check(&self) -> Result<(), GenerationError> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(GenerationError::Temperature(self.temperature));
        }
        if self.top_k == Some(0) {
            return Err(GenerationError::TopK);
        }
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => Err(GenerationError::TopP(p)),
            _ => Ok(()),
        }
    }
}

/// The choices of one prompt.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    allowed_vocab: Option<usize>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// The sampler of prompt `index`; see [`Options`](crate::Options) for `allowed_vocab`.
    pub fn new(sampling: Sampling, allowed_vocab: Option<usize>, index: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        rng.set_stream(index as u64);
        Self { sampling, allowed_vocab, rng }
    }

    /// Whether it takes the most likely token.
    pub fn is_greedy(&self) -> bool {
        self.sampling.temperature == 0.0
    }

    /// Whether it may choose `id`.
    pub fn allows(&self, id: u32) -> bool {
        self.allowed_vocab.is_none_or(|vocab| id != PAD && (id as usize) < vocab)
    }

    /// The next token; `None` when no allowed logit is a number.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let end = self.allowed_vocab.map_or(logits.len(), |vocab| vocab.min(logits.len()));
        let pad = self.allowed_vocab.map(|_| PAD);
        let allowed = (0..end as u32).zip(logits).filter(|(id, _)| Some(*id) != pad);
        let most =
            allowed.clone().fold(None, |best: Option<(u32, f32)>, (id, &logit)| match best {
                Some((_, most)) if logit <= most || logit.is_nan() => best,
                None if logit.is_nan() => None,
                _ => Some((id, logit)),
            });
        let (likeliest, most) = most.filter(|(_, most)| most.is_finite())?;
        if self.sampling.temperature == 0.0 {
            return Some(likeliest);
        }
        // relative to the largest, so that no exponential overflows
        let weight =
            |logit: f32| ((f64::from(logit) - f64::from(most)) / self.sampling.temperature).exp();
        let weights = allowed.map(|(id, &logit)| (id, weight(logit)));
        let mut weights: Vec<(u32, f64)> = weights.filter(|(_, w)| *w > 0.0).collect();
        self.truncate(&mut weights);
        let total: f64 = weights.iter().map(|(_, w)| w).sum();
        let mut left = self.rng.random::<f64>() * total;
        for (id, weight) in &weights {
            left -= weight;
            if left < 0.0 {
                return Some(*id);
            }
        }
        // rounding used the total up
        weights.last().map(|(id, _)| *id)
    }

    /// Keeps what `top_k` and `top_p` keep.
    fn truncate(&self, weights: &mut Vec<(u32, f64)>) {
        let by_weight = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if let Some(k) = self.sampling.top_k.filter(|&k| k < weights.len()) {
            weights.select_nth_unstable_by(k, by_weight);
            weights.truncate(k);
            // a stable order for the draw
            weights.sort_unstable_by(by_weight);
        }
        if let Some(p) = self.sampling.top_p.filter(|&p| p < 1.0) {
            weights.sort_unstable_by(by_weight);
            let enough = p * weights.iter().map(|(_, w)| w).sum::<f64>();
            let mut sum = 0.0;
            let kept = weights.iter().position(|(_, w)| {
                sum += w;
                sum >= enough
            });
            weights.truncate(kept.map_or(weights.len(), |last| last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 20_000;

    /// Logits of probabilities 0.1, 0.4, 0.2, 0.3.
    fn logits() -> Vec<f32> {
        [0.1_f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln() + 3.0).collect()
    }

    fn frequencies(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling, None, 0);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..DRAWS {
            counts[sampler.choose(logits).unwrap() as usize] += 1.0 / DRAWS as f64;
        }
        counts
    }

    fn assert_close(ours: &[f64], expected: &[f64]) {
        for (ours, expected) in ours.iter().zip(expected) {
            // four standard deviations of a frequency over DRAWS draws
            let tolerance = 4.0 * (expected * (1.0 - expected) / DRAWS as f64).sqrt() + 1e-9;
            assert!((ours - expected).abs() <= tolerance, "{ours} for {expected}");
        }
    }

    #[test]
    fn temperature_one_draws_from_the_softmax() {
        assert_close(&frequencies(Sampling::at(1.0, 7), &logits()), &[0.1, 0.4, 0.2, 0.3]);
    }

    #[test]
    fn temperature_sharpens() {
        // squares of the probabilities, normalised
        let expected = [1.0, 16.0, 4.0, 9.0].map(|w| w / 30.0);
        assert_close(&frequencies(Sampling::at(0.5, 7), &logits()), &expected);
    }

    #[test]
    fn top_k_keeps_the_k_most_likely() {
        let sampling = Sampling { top_k: Some(2), ..Sampling::at(1.0, 7) };
        assert_close(&frequencies(sampling, &logits()), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_it() {
        for (top_p, expected) in [
            (0.3, [0.0, 1.0, 0.0, 0.0]),
            (0.6, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (0.8, [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]),
            (1.0, [0.1, 0.4, 0.2, 0.3]),
        ] {
            let sampling = Sampling { top_p: Some(top_p), ..Sampling::at(1.0, 7) };
            assert_close(&frequencies(sampling, &logits()), &expected);
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        let mut greedy = Sampler::new(Sampling::greedy(), None, 0);
        assert_eq!(greedy.choose(&[0.0, 2.0, 2.0, 1.0]), Some(1));
        assert_eq!(greedy.choose(&[-0.5, -0.5]), Some(0));
    }

    #[test]
    fn top_k_one_takes_the_lowest_of_equals() {
        let sampling = Sampling { top_k: Some(1), ..Sampling::at(1.0, 7) };
        assert_close(&frequencies(sampling, &[0.0, 2.0, 2.0, 1.0]), &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn padding_and_ids_outside_the_tokenizer_are_never_chosen() {
        let logits = [0.0, 9.0, 1.0, 0.5, 8.0];
        assert_eq!(Sampler::new(Sampling::greedy(), Some(4), 0).choose(&logits), Some(2));
        assert_eq!(Sampler::new(Sampling::greedy(), None, 0).choose(&logits), Some(1));
        let mut hot = Sampler::new(Sampling::at(1e9, 3), Some(4), 0);
        for _ in 0..200 {
            assert!([0, 2, 3].contains(&hot.choose(&logits).unwrap()));
        }
    }

    #[test]
    fn draws_depend_on_the_seed_and_the_index_of_the_prompt() {
        let draws = |seed, index| -> Vec<u32> {
            let mut sampler = Sampler::new(Sampling::at(1.0, seed), None, index);
            (0..64).map(|_| sampler.choose(&logits()).unwrap()).collect()
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        assert_ne!(draws(1, 2), draws(2, 2));
    }

    #[test]
    fn logits_that_are_no_numbers_give_nothing() {
        for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [0.0, f32::INFINITY, 0.0]] {
            for sampling in [Sampling::greedy(), Sampling::at(1.0, 0)] {
                assert_eq!(Sampler::new(sampling, None, 0).choose(&logits), None);
            }
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (sampling, part) in [
            (Sampling::at(-1.0, 0), "--temperature -1"),
            (Sampling::at(f64::NAN, 0), "--temperature"),
            (Sampling { top_k: Some(0), ..Sampling::greedy() }, "--top-k 0"),
            (Sampling { top_p: Some(0.0), ..Sampling::greedy() }, "--top-p 0"),
            (Sampling { top_p: Some(1.5), ..Sampling::greedy() }, "--top-p 1.5"),
        ] {
            let error = sampling.check().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
