//! Chooses a token from a row of logits, on the host.

use block_transformer_layers::{Draw, TokenLogProbs, max_of, softmax_weights};
use block_transformer_text::PAD;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::adjustments::Adjustments;
use crate::options::Options;
use crate::sampling::Sampling;
use crate::weights::{draw, keep_largest, sum};

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    pub token: u32,
    /// Before temperature, bias and penalties, if [`Options::logprobs`] asks for them.
    pub logprobs: Option<Box<TokenLogProbs>>,
}

impl From<u32> for Choice {
    /// A token without log-probabilities.
    fn from(token: u32) -> Self {
        Self { token, logprobs: None }
    }
}

/// Chooses the tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    allowed_vocab: Option<usize>,
    adjustments: Adjustments,
    /// See [`Options::logprobs`].
    logprobs: Option<usize>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// Returns a sampler at the start of a sequence.
    pub fn new(options: &Options) -> Self {
        let Options { sampling, allowed_vocab, logprobs, rng_stream, .. } = *options;
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        rng.set_stream(rng_stream as u64);
        Self { sampling, allowed_vocab, adjustments: Adjustments::new(options), logprobs, rng }
    }

    /// Returns whether the temperature is so low that the largest logit is always chosen, after bias and penalties.
    pub fn is_greedy(&self) -> bool {
        (self.sampling.temperature.recip() as f32).is_infinite()
    }

    /// Whether the largest logit and its id are all that the sampler needs of a row, if it allows the id.
    pub(crate) fn needs_maximum_only(&self) -> bool {
        self.is_greedy() && self.adjustments.is_empty() && self.logprobs.is_none()
    }

    /// Whether the sampler needs the logits on the host, because no device applies its settings.
    pub(crate) fn needs_host(&self) -> bool {
        let min_p = self.min_p().is_some() && !self.is_greedy();
        min_p || !self.adjustments.is_empty() || self.logprobs.is_some()
    }

    fn min_p(&self) -> Option<f64> {
        self.sampling.min_p.filter(|&p| p > 0.0)
    }

    /// The sampler's settings for a choice on a device, among the ids below `vocab`.
    pub(crate) fn on_device(&self, vocab: usize) -> Draw {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        Draw {
            temperature: if self.is_greedy() { 0.0 } else { temperature as f32 },
            top_k,
            top_p: top_p.map(|p| p as f32),
            vocab: self.allowed_vocab.map_or(vocab, |allowed| allowed.min(vocab)),
            without_pad: self.allowed_vocab.is_some(),
        }
    }

    /// The next random number for a choice on a device, from 0 to below 1; 0 for a sampler that needs none there.
    pub(crate) fn noise(&mut self) -> f32 {
        if self.is_greedy() || self.needs_host() { 0.0 } else { self.rng.random() }
    }

    /// Returns whether the sampler may choose `id`.
    pub fn allows(&self, id: u32) -> bool {
        self.allowed_vocab.is_none_or(|vocab| id != PAD && (id as usize) < vocab)
    }

    /// Returns the next token; `None` when the largest allowed logit is not finite.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let end = self.allowed_vocab.map_or(logits.len(), |vocab| vocab.min(logits.len()));
        let mut weights = logits[..end].to_vec();
        self.adjustments.apply(&mut weights);
        if let (Some(_), Some(pad)) = (self.allowed_vocab, weights.get_mut(PAD as usize)) {
            *pad = f32::NAN;
        }
        let most = Some(max_of(&weights)).filter(|most| most.is_finite())?;
        let id = if self.is_greedy() {
            weights.iter().position(|&logit| logit == most)?
        } else {
            self.draw(&mut weights, most)?
        } as u32;
        self.adjustments.count(id);
        Some(id)
    }

    /// Draws an id by its logit; `most` is the largest logit.
    fn draw(&mut self, weights: &mut [f32], most: f32) -> Option<usize> {
        // relative to the largest logit, so that no exponential overflows; NaN stays NaN
        softmax_weights(weights, most, self.sampling.temperature.recip() as f32);
        if let Some(p) = self.min_p() {
            let least = p * f64::from(max_of(weights));
            weights.iter_mut().filter(|w| f64::from(**w) < least).for_each(|w| *w = 0.0);
        }
        if let Some(k) = self.sampling.top_k {
            keep_largest(weights, k as f64, |_| 1.0);
        }
        if let Some(p) = self.sampling.top_p.filter(|&p| p < 1.0) {
            let enough = p * sum(weights);
            keep_largest(weights, enough, f64::from);
        }
        draw(&mut self.rng, weights)
    }

    /// Returns the next token with the log-probabilities that [`Options::logprobs`] asks for; `None` when the
    /// largest allowed logit is not finite.
    pub(crate) fn choose_with_logprobs(&mut self, logits: &[f32]) -> Option<Choice> {
        let token = self.choose(logits)?;
        let logprobs = self.logprobs.map(|top| TokenLogProbs::of(logits, token, top).into());
        Some(Choice { token, logprobs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 20_000;

    fn sampler(sampling: Sampling, allowed_vocab: Option<usize>, rng_stream: usize) -> Sampler {
        Sampler::new(&Options { sampling, allowed_vocab, rng_stream, ..Options::default() })
    }

    /// Logits of probabilities 0.1, 0.4, 0.2, 0.3.
    fn logits() -> Vec<f32> {
        [0.1_f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln() + 3.0).collect()
    }

    fn frequencies(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut sampler = sampler(sampling, None, 0);
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
    fn frequencies_follow_temperature_min_p_top_k_and_top_p() {
        let plain = Sampling::at(1.0, 7);
        let top_p = |top_p| Sampling { top_p: Some(top_p), ..plain };
        let min_p = |min_p| Sampling { min_p: Some(min_p), ..plain };
        for (sampling, expected) in [
            (plain, [0.1, 0.4, 0.2, 0.3]),
            // squares of the probabilities, normalised
            (Sampling::at(0.5, 7), [1.0, 16.0, 4.0, 9.0].map(|w| w / 30.0)),
            (Sampling { top_k: Some(2), ..plain }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (top_p(0.3), [0.0, 1.0, 0.0, 0.0]),
            (top_p(0.6), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (top_p(0.8), [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]),
            (top_p(1.0), [0.1, 0.4, 0.2, 0.3]),
            (min_p(0.0), [0.1, 0.4, 0.2, 0.3]),
            (min_p(0.2), [0.1, 0.4, 0.2, 0.3]),
            (min_p(0.3), [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]),
            (min_p(0.7), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (min_p(1.0), [0.0, 1.0, 0.0, 0.0]),
            // after the temperature: squares of the probabilities are at least 0.5 of the largest
            (Sampling { temperature: 0.5, ..min_p(0.5) }, [0.0, 16.0 / 25.0, 0.0, 9.0 / 25.0]),
            // before the others: 0.4 is more than a half of what is left, but not of everything
            (Sampling { top_p: Some(0.5), ..min_p(0.7) }, [0.0, 1.0, 0.0, 0.0]),
            (Sampling { top_k: Some(3), ..min_p(0.7) }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
        ] {
            assert_close(&frequencies(sampling, &logits()), &expected);
        }
    }

    #[test]
    fn greedy_and_top_k_one_choose_the_lowest_id_among_equals() {
        for temperature in [0.0, 1e-300, f64::from_bits(1), 1e-39, 1e-38] {
            let mut greedy = sampler(Sampling::at(temperature, 0), None, 0);
            assert_eq!(greedy.is_greedy(), temperature < 1e-38);
            assert_eq!(greedy.choose(&[0.0, 3.0, 2.0, 1.0]), Some(1));
            if greedy.is_greedy() {
                assert_eq!(greedy.choose(&[0.0, 2.0, 2.0, 1.0]), Some(1));
                assert_eq!(greedy.choose(&[-0.5, -0.5]), Some(0));
                assert_eq!(greedy.on_device(4).temperature, 0.0);
            }
        }
        let sampling = Sampling { top_k: Some(1), ..Sampling::at(1.0, 7) };
        assert_close(&frequencies(sampling, &[0.0, 2.0, 2.0, 1.0]), &[0.0, 1.0, 0.0, 0.0]);
    }

    /// The tokens that `options` choose from the same logits again and again.
    fn repeated(options: &Options, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(options);
        (0..count).map(|_| sampler.choose(logits).unwrap()).collect()
    }

    #[test]
    fn penalties_are_subtracted_from_logits_of_generated_tokens() {
        let greedy = |presence_penalty, frequency_penalty| Options {
            sampling: Sampling { presence_penalty, frequency_penalty, ..Sampling::greedy() },
            ..Options::default()
        };
        let logits = [3.0, 2.4, 0.9];
        assert_eq!(repeated(&greedy(0.0, 0.0), &logits, 3), [0, 0, 0]);
        // 3.0, then 2.4 > 2.0, then 2.0 > 1.4: once per token
        assert_eq!(repeated(&greedy(1.0, 0.0), &logits, 5), [0, 1, 0, 0, 0]);
        // [3, 2.4, 0.9], [2, 2.4, 0.9], [2, 1.4, 0.9], [1, 1.4, 0.9], [1, 0.4, 0.9], [0, 0.4, 0.9]
        assert_eq!(repeated(&greedy(0.0, 1.0), &logits, 6), [0, 1, 0, 1, 0, 2]);
        // [3, 2.4, 0.9], [1.5, 2.4, 0.9], [1.5, 0.9, 0.9], [1, 0.9, 0.9], [0.5, 0.9, 0.9]
        assert_eq!(repeated(&greedy(1.0, 0.5), &logits, 5), [0, 1, 0, 0, 1]);
        // negative penalties favour what is there already
        let options = Options { logit_bias: vec![(1, 0.7)], ..greedy(-2.0, 0.0) };
        assert_eq!(repeated(&options, &logits, 3), [1, 1, 1]);
        // the temperature divides what is left: after 0, the odds of 0 and 1 are e^((2 - 2.4) / 0.5)
        let sampling = Sampling { frequency_penalty: 1.0, ..Sampling::at(0.5, 0) };
        let second = (0..DRAWS).filter_map(|rng_stream| {
            let options = Options { sampling, rng_stream, ..Options::default() };
            match repeated(&options, &[2.6, 2.4, -90.0], 2)[..] {
                [0, second] => Some(second),
                _ => None,
            }
        });
        let second: Vec<u32> = second.collect();
        let zeros = second.iter().filter(|&&id| id == 0).count() as f64 / second.len() as f64;
        let expected = 1.0 / (1.0 + (0.8_f64 / 0.5).exp());
        // four standard deviations
        let tolerance = 4.0 * (expected * (1.0 - expected) / second.len() as f64).sqrt();
        assert!((zeros - expected).abs() < tolerance, "{zeros} for {expected}");
    }

    #[test]
    fn bias_is_added_to_logits() {
        let logits = [3.0, 2.4, 0.9, 0.0];
        let biased = |bias: &[(u32, f32)]| {
            let allowed_vocab = Some(4);
            let options =
                Options { logit_bias: bias.to_vec(), allowed_vocab, ..Options::default() };
            repeated(&options, &logits, 1)[0]
        };
        assert_eq!(biased(&[]), 0);
        assert_eq!(biased(&[(2, 2.0)]), 0);
        assert_eq!(biased(&[(2, 2.2)]), 2);
        assert_eq!(biased(&[(2, 1.1), (2, 1.1)]), 2);
        assert_eq!(biased(&[(0, -100.0), (3, 1.0)]), 3);
        // padding stays excluded
        assert_eq!(biased(&[(PAD, 100.0)]), 0);
        let mut half = [0.0; 2];
        let sampling = Sampling::at(1.0, 1);
        let options = Options { sampling, logit_bias: vec![(0, -0.6)], ..Options::default() };
        repeated(&options, &logits[..2], DRAWS)
            .iter()
            .for_each(|&id| half[id as usize] += 1.0 / DRAWS as f64);
        assert_close(&half, &[0.5, 0.5]);
    }

    #[test]
    fn log_probabilities_are_those_before_any_change() {
        let plain = TokenLogProbs::of(&logits(), 2, 2);
        let sampling = Sampling {
            min_p: Some(0.5),
            top_k: Some(3),
            presence_penalty: 2.0,
            ..Sampling::at(0.1, 3)
        };
        let options = Options {
            sampling,
            logit_bias: vec![(2, 100.0)],
            logprobs: Some(2),
            allowed_vocab: Some(3),
            ..Options::default()
        };
        let mut sampler = Sampler::new(&options);
        for _ in 0..2 {
            let chosen = sampler.choose_with_logprobs(&logits()).unwrap();
            assert_eq!(chosen, Choice { token: 2, logprobs: Some(plain.clone().into()) });
        }
        // the fourth id is not allowed, and is counted
        assert!((plain.log_prob - 0.2_f64.ln()).abs() < 1e-6);
        assert_eq!(plain.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
        let none = Sampler::new(&Options { logprobs: None, ..options });
        assert_eq!(none.clone().choose_with_logprobs(&logits()).unwrap().logprobs, None);
    }

    #[test]
    fn a_sampler_says_which_logits_it_needs() {
        let plain = Options::default();
        let sampling = |sampling| Options { sampling, ..Options::default() };
        let greedy = Sampling::greedy();
        for (options, maximum_only, host) in [
            (plain.clone(), true, false),
            (sampling(Sampling { min_p: Some(0.5), ..greedy }), true, false),
            (sampling(Sampling::at(1.0, 0)), false, false),
            (sampling(Sampling { min_p: Some(0.0), ..Sampling::at(1.0, 0) }), false, false),
            (sampling(Sampling { min_p: Some(0.1), ..Sampling::at(1.0, 0) }), false, true),
            (sampling(Sampling { presence_penalty: -0.1, ..greedy }), false, true),
            (sampling(Sampling { frequency_penalty: 0.1, ..greedy }), false, true),
            (Options { logit_bias: vec![(0, 0.0)], ..plain.clone() }, true, false),
            (Options { logit_bias: vec![(0, 1.0)], ..plain.clone() }, false, true),
            (Options { logprobs: Some(0), ..plain.clone() }, false, true),
            (Options { stop_tokens: vec![3], ..plain }, true, false),
        ] {
            let sampler = Sampler::new(&options);
            assert_eq!(sampler.needs_maximum_only(), maximum_only, "{options:?}");
            assert_eq!(sampler.needs_host(), host, "{options:?}");
        }
    }

    #[test]
    fn padding_and_ids_outside_the_tokenizer_are_never_chosen() {
        let logits = [0.0, 9.0, 1.0, 0.5, 8.0];
        assert_eq!(sampler(Sampling::greedy(), Some(4), 0).choose(&logits), Some(2));
        assert_eq!(sampler(Sampling::greedy(), None, 0).choose(&logits), Some(1));
        let mut hot = sampler(Sampling::at(1e9, 3), Some(4), 0);
        for _ in 0..200 {
            assert!([0, 2, 3].contains(&hot.choose(&logits).unwrap()));
        }
    }

    #[test]
    fn draws_depend_on_the_seed_and_the_stream() {
        let draws = |seed, stream| -> Vec<u32> {
            let mut sampler = sampler(Sampling::at(1.0, seed), None, stream);
            (0..64).map(|_| sampler.choose(&logits()).unwrap()).collect()
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        assert_ne!(draws(1, 2), draws(2, 2));
    }

    #[test]
    fn logits_that_are_not_finite_choose_no_token() {
        for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [0.0, f32::INFINITY, 0.0]] {
            for sampling in [Sampling::greedy(), Sampling::at(1.0, 0)] {
                assert_eq!(sampler(sampling, None, 0).choose(&logits), None);
            }
        }
    }
}
