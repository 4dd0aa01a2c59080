//! How many guessed tokens are right, by the number of tokens that matched before the guess.

use super::draft::Guess;

/// The classes of matched tokens: 1, 2, 3, 4 to 5, 6 to 8, 9 and more; in a corpus 2 and 3.
const CLASSES: usize = 8;
/// The rate of each class before anything is known.
const PRIOR: [f64; CLASSES] = [0.15, 0.3, 0.4, 0.55, 0.65, 0.8, 0.4, 0.5];
/// The tokens for which the rate of all sequences counts in the rate of one.
const WEIGHT: f64 = 8.0;
/// Tokens after which older ones count half.
const MEMORY: f64 = 64.0;

/// Counts of guessed tokens that were compared with the tokens of the model. A guess is compared up to
/// its first wrong token, whether it was run or not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acceptance {
    right: [f64; CLASSES],
    compared: [f64; CLASSES],
}

impl Acceptance {
    /// Records a guess of which `right` tokens were right; `wrong` says whether a wrong token followed.
    pub(crate) fn record(&mut self, guess: &Guess, right: usize, wrong: bool) {
        let Some(class) = class(guess) else { return };
        self.right[class] += right as f64;
        self.compared[class] += (right + usize::from(wrong)) as f64;
        if self.compared[class] > MEMORY {
            self.right[class] /= 2.0;
            self.compared[class] /= 2.0;
        }
    }

    /// Returns the probability that a guessed token is right if all before it are; `all` has the counts
    /// of all sequences.
    pub(crate) fn rate(&self, guess: &Guess, all: &Self) -> f64 {
        let Some(class) = class(guess) else { return 0.0 };
        let shared = all.smoothed(class, PRIOR[class]);
        self.smoothed(class, shared)
    }

    fn smoothed(&self, class: usize, before: f64) -> f64 {
        (self.right[class] + WEIGHT * before) / (self.compared[class] + WEIGHT)
    }
}

/// The class of a guess; `None` without a guess.
fn class(guess: &Guess) -> Option<usize> {
    Some(match guess.matched {
        0 => return None,
        matched if guess.from_corpus => matched + 4,
        matched @ 1..=3 => matched - 1,
        4..=5 => 3,
        6..=8 => 4,
        _ => 5,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_moves_from_that_of_all_sequences_to_the_own_one() {
        let guess = |matched| Guess { matched, ..Guess::default() };
        let (none, two, three, four) = (guess(0), &guess(2), guess(3), guess(4));
        let (mut one, mut all) = (Acceptance::default(), Acceptance::default());
        assert_eq!(one.rate(&none, &all), 0.0);
        assert!((one.rate(two, &all) - 0.3).abs() < 1e-12);
        all.record(two, 8, false);
        // (8 + 8 * 0.3) / 16
        assert!((one.rate(two, &all) - 0.65).abs() < 1e-12);
        for _ in 0..8 {
            one.record(two, 0, true);
        }
        assert!((one.rate(two, &all) - 0.325).abs() < 1e-12);
        // other classes are not affected
        assert!((one.rate(&four, &all) - 0.55).abs() < 1e-12);
        let corpus = |matched| Guess { from_corpus: true, ..guess(matched) };
        assert!((one.rate(&corpus(2), &all) - 0.4).abs() < 1e-12);
        assert!((one.rate(&corpus(3), &all) - 0.5).abs() < 1e-12);
        assert!((one.rate(&three, &all) - 0.4).abs() < 1e-12);
        // the recent past counts
        for _ in 0..100 {
            one.record(two, 3, false);
        }
        assert!(one.rate(two, &all) > 0.9);
    }
}
