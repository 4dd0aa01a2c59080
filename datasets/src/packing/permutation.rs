//! Permutations that need no memory.

/// Rounds of the Feistel network. Four make a good permutation if the round function is random;
/// two more make up for a round function that is only fast.
const ROUNDS: usize = 6;

/// A permutation of the numbers below `count`, which depends on keys.
///
/// A Feistel network permutes the numbers of an even number of bits. Where it leaves the numbers
/// below `count`, it is applied again until it returns there (cycle walking). See Black and Rogaway,
/// "Ciphers with Arbitrary Finite Domains", 2002.
#[derive(Clone, Debug)]
pub(super) struct Permutation {
    count: u64,
    /// Half of the bits.
    half: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// `key` returns random numbers.
    pub(super) fn new(count: u64, mut key: impl FnMut() -> u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        let half = bits.div_ceil(2).max(1);
        Self { count, half, keys: std::array::from_fn(|_| key()) }
    }

    /// The number at `place`, which is below `count`.
    pub(super) fn at(&self, place: u64) -> u64 {
        let mut number = self.network(place);
        while number >= self.count {
            number = self.network(number);
        }
        number
    }

    fn network(&self, number: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (number >> self.half, number & mask);
        for key in self.keys {
            (left, right) = (right, left ^ mix(right ^ key) & mask);
        }
        left << self.half | right
    }
}

/// A hash of `number`: the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
/// Pseudorandom Number Generators", 2014).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn permutation(count: u64, seed: u64) -> Permutation {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Permutation::new(count, || rng.random())
    }

    proptest! {
        #[test]
        fn every_number_has_one_place(count in 1_u64..3000, seed: u64) {
            let permutation = permutation(count, seed);
            let mut numbers: Vec<u64> = (0..count).map(|place| permutation.at(place)).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn large_counts_are_mixed_and_seeds_differ() {
        let count = 1 << 40;
        let numbers = |seed| (0..1000).map(|i| permutation(count, seed).at(i)).collect::<Vec<_>>();
        let numbers: Vec<Vec<u64>> = vec![numbers(1), numbers(2)];
        assert_ne!(numbers[0], numbers[1]);
        // the mean of uniform numbers: half of the count, with a standard deviation of
        // count / sqrt(12 * 1000), of which it may be off by four
        for numbers in numbers {
            let mean = numbers.iter().sum::<u64>() as f64 / 1000.0 / count as f64;
            assert!((mean - 0.5).abs() < 4.0 / (12_000.0_f64).sqrt(), "{mean}");
            let rising = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
            assert!((400..600).contains(&rising), "{rising}");
        }
    }

    /// Runs that were begun before a change must be resumable after it.
    #[test]
    fn the_permutation_does_not_change() {
        let permutation = permutation(10, 7);
        let numbers: Vec<u64> = (0..10).map(|place| permutation.at(place)).collect();
        assert_eq!(numbers, [5, 7, 3, 8, 1, 0, 9, 2, 6, 4]);
    }
}
