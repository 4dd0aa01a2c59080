//! Chooses a token from a row of logits, on the host.

use block_transformer_layers::{Draw, max_of, softmax_weights};
use block_transformer_text::PAD;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::GenerationError;

/// Number of weights that are summed in f32; these partial sums are added in f64.
const F32_SUM: usize = 256;

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
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => Err(GenerationError::TopP(p)),
            _ => Ok(()),
        }
    }
}

/// Chooses the tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    allowed_vocab: Option<usize>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// Returns a sampler at the start of a sequence; see [`Options`](crate::Options) for
    /// `allowed_vocab` and `rng_stream`.
    pub fn new(sampling: Sampling, allowed_vocab: Option<usize>, rng_stream: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        rng.set_stream(rng_stream as u64);
        Self { sampling, allowed_vocab, rng }
    }

    /// Returns whether the sampler always chooses the most likely token.
    pub fn is_greedy(&self) -> bool {
        (self.sampling.temperature.recip() as f32).is_infinite()
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

    /// The next random number, from 0 to below 1; 0 for a greedy sampler, which needs none.
    pub(crate) fn noise(&mut self) -> f32 {
        if self.is_greedy() { 0.0 } else { self.rng.random() }
    }

    /// Returns whether the sampler may choose `id`.
    pub fn allows(&self, id: u32) -> bool {
        self.allowed_vocab.is_none_or(|vocab| id != PAD && (id as usize) < vocab)
    }

    /// Returns the next token; `None` when the largest allowed logit is not finite.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let end = self.allowed_vocab.map_or(logits.len(), |vocab| vocab.min(logits.len()));
        let mut weights = logits[..end].to_vec();
        if let (Some(_), Some(pad)) = (self.allowed_vocab, weights.get_mut(PAD as usize)) {
            *pad = f32::NAN;
        }
        let most = Some(max_of(&weights)).filter(|most| most.is_finite())?;
        if self.is_greedy() {
            return weights.iter().position(|&logit| logit == most).map(|id| id as u32);
        }
        // relative to the largest logit, so that no exponential overflows; NaN stays NaN
        softmax_weights(&mut weights, most, self.sampling.temperature.recip() as f32);
        if let Some(k) = self.sampling.top_k {
            keep_largest(&mut weights, k as f64, |_| 1.0);
        }
        if let Some(p) = self.sampling.top_p.filter(|&p| p < 1.0) {
            let enough = p * sum(&weights);
            keep_largest(&mut weights, enough, f64::from);
        }
        draw(&mut self.rng, &weights).map(|id| id as u32)
    }
}

/// Keeps the smallest set of largest weights whose `measure` sums to at least `enough`, and sets the
/// others to 0. Among equal weights, lower ids are kept first.
///
/// This avoids sorting all weights. Positive floats are ordered by their leading bits. One pass
/// sums the measures of the weights in each bucket of equal leading bits. Then the buckets are
/// added from the largest one down, until the sum reaches `enough`. Only the weights of the last
/// bucket are sorted.
fn keep_largest(weights: &mut [f32], enough: f64, measure: impl Fn(f32) -> f64) {
    // the sign, the exponent and 5 bits of the fraction
    let bucket = |weight: f32| (weight.to_bits() >> 18) as usize;
    let mut buckets = vec![0.0; 1 << 13];
    for &weight in weights.iter().filter(|weight| **weight > 0.0) {
        buckets[bucket(weight)] += measure(weight);
    }
    let mut left = enough;
    let last = buckets.iter().rposition(|&held| {
        let reached = held >= left;
        left -= if reached { 0.0 } else { held };
        reached
    });
    // all weights together are less than `enough`: keep them all
    let Some(last) = last else { return };
    let mut within: Vec<usize> =
        (0..weights.len()).filter(|&id| weights[id] > 0.0 && bucket(weights[id]) == last).collect();
    within.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let kept = within.iter().position(|&id| {
        left -= measure(weights[id]);
        left <= 0.0
    });
    for &id in &within[kept.map_or(within.len(), |kept| kept + 1)..] {
        weights[id] = 0.0;
    }
    for weight in weights.iter_mut().filter(|weight| **weight > 0.0) {
        if bucket(*weight) < last {
            *weight = 0.0;
        }
    }
}

/// Returns the sum of the positive weights; NaN counts as 0.
fn sum(weights: &[f32]) -> f64 {
    let positive = |weight: f32| if weight > 0.0 { weight } else { 0.0 };
    let of_chunk = |chunk: &[f32]| {
        let mut sums = [0.0_f32; 16];
        let (lanes, rest) = chunk.as_chunks::<16>();
        for weights in lanes {
            for (sum, &weight) in sums.iter_mut().zip(weights) {
                *sum += positive(weight);
            }
        }
        sums.iter().chain(rest).map(|&weight| f64::from(positive(weight))).sum::<f64>()
    };
    weights.chunks(F32_SUM).map(of_chunk).sum()
}

/// Draws an index in proportion to the positive weights; NaN counts as 0.
fn draw(rng: &mut ChaCha8Rng, weights: &[f32]) -> Option<usize> {
    let sums: Vec<f64> = weights.chunks(F32_SUM).map(sum).collect();
    let mut left = rng.random::<f64>() * sums.iter().sum::<f64>();
    let mut last = None;
    for (chunk, sum) in sums.iter().enumerate() {
        let start = chunk * F32_SUM;
        if left >= *sum {
            left -= sum;
            continue;
        }
        for (place, &weight) in (start..).zip(&weights[start..]).take(F32_SUM) {
            if weight > 0.0 {
                last = Some(place);
                left -= f64::from(weight);
                if left < 0.0 {
                    return last;
                }
            }
        }
    }
    // rounding put the draw beyond the last weight
    last.or_else(|| weights.iter().rposition(|&weight| weight > 0.0))
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
    fn frequencies_follow_temperature_top_k_and_top_p() {
        let plain = Sampling::at(1.0, 7);
        let top_p = |top_p| Sampling { top_p: Some(top_p), ..plain };
        for (sampling, expected) in [
            (plain, [0.1, 0.4, 0.2, 0.3]),
            // squares of the probabilities, normalised
            (Sampling::at(0.5, 7), [1.0, 16.0, 4.0, 9.0].map(|w| w / 30.0)),
            (Sampling { top_k: Some(2), ..plain }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (top_p(0.3), [0.0, 1.0, 0.0, 0.0]),
            (top_p(0.6), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
            (top_p(0.8), [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]),
            (top_p(1.0), [0.1, 0.4, 0.2, 0.3]),
        ] {
            assert_close(&frequencies(sampling, &logits()), &expected);
        }
    }

    #[test]
    fn greedy_and_top_k_one_choose_the_lowest_id_among_equals() {
        for temperature in [0.0, 1e-300, f64::from_bits(1), 1e-39, 1e-38] {
            let mut greedy = Sampler::new(Sampling::at(temperature, 0), None, 0);
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

    #[test]
    fn keep_largest_keeps_the_front_of_the_sorted_weights() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for round in 0..200 {
            // peaked, flat, and with many equal weights
            let spread = [20.0, 1e-3, 3.0][round % 3];
            let steps = if round % 3 == 2 { 4.0 } else { 1e6 };
            let one = |random: &mut ChaCha8Rng| {
                let x = (random.random::<f32>() * steps).floor() / steps;
                (-spread * x).exp()
            };
            let mut weights: Vec<f32> = (0..1000).map(|_| one(&mut random)).collect();
            weights[7] = f32::NAN;
            weights[8] = 0.0;
            let mut sorted: Vec<usize> = (0..1000).filter(|&id| weights[id] > 0.0).collect();
            sorted.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
            let kept = |weights: &[f32]| -> Vec<usize> {
                (0..weights.len()).filter(|&id| weights[id] > 0.0).collect()
            };
            for k in [1, 10, 997, 998, 2000] {
                let mut some = weights.clone();
                keep_largest(&mut some, k as f64, |_| 1.0);
                let mut expected = sorted[..k.min(998)].to_vec();
                expected.sort_unstable();
                assert_eq!(kept(&some), expected);
            }
            for p in [0.01, 0.5, 0.97] {
                let enough = p * sum(&weights);
                let mut some = weights.clone();
                keep_largest(&mut some, enough, f64::from);
                let some = kept(&some);
                let mut front = sorted[..some.len()].to_vec();
                let held =
                    |ids: &[usize]| ids.iter().map(|&id| f64::from(weights[id])).sum::<f64>();
                let slack = 1e-6 * enough;
                assert!(held(&front) >= enough - slack);
                assert!(held(&front[..front.len() - 1]) < enough + slack);
                front.sort_unstable();
                assert_eq!(some, front);
            }
        }
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
    fn draws_depend_on_the_seed_and_the_stream() {
        let draws = |seed, stream| -> Vec<u32> {
            let mut sampler = Sampler::new(Sampling::at(1.0, seed), None, stream);
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
                assert_eq!(Sampler::new(sampling, None, 0).choose(&logits), None);
            }
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (sampling, part) in [
            (Sampling::at(-1.0, 0), "temperature -1"),
            (Sampling::at(f64::NAN, 0), "temperature NaN"),
            (Sampling { top_k: Some(0), ..Sampling::greedy() }, "top_k 0"),
            (Sampling { top_p: Some(0.0), ..Sampling::greedy() }, "top_p 0"),
            (Sampling { top_p: Some(1.5), ..Sampling::greedy() }, "top_p 1.5"),
        ] {
            let error = sampling.check().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
