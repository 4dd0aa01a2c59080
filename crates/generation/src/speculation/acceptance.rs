//! How many guessed tokens are right, by the number of tokens that matched before the guess.

/// The classes of matched tokens: 1, 2, 3, 4 to 5, 6 to 8, 9 and more.
const CLASSES: usize = 6;
/// The rate of each class before anything is known.
const PRIOR: [f64; CLASSES] = [0.15, 0.3, 0.4, 0.55, 0.65, 0.8];
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
    /// Records a guess with `matched` tokens before it, of which `right` tokens were right; `wrong` says
    /// whether a wrong token followed.
    pub(crate) fn record(&mut self, matched: usize, right: usize, wrong: bool) {
        let Some(class) = class(matched) else { return };
        self.right[class] += right as f64;
        self.compared[class] += (right + usize::from(wrong)) as f64;
        if self.compared[class] > MEMORY {
            self.right[class] /= 2.0;
            self.compared[class] /= 2.0;
        }
    }

    /// Returns the probability that a guessed token is right if all before it are; `all` has the counts
    /// of all sequences.
    pub(crate) fn rate(&self, matched: usize, all: &Self) -> f64 {
        let Some(class) = class(matched) else { return 0.0 };
        let shared = all.smoothed(class, PRIOR[class]);
        self.smoothed(class, shared)
    }

    fn smoothed(&self, class: usize, before: f64) -> f64 {
        (self.right[class] + WEIGHT * before) / (self.compared[class] + WEIGHT)
    }
}

/// The class of `matched` tokens; `None` for 0.
fn class(matched: usize) -> Option<usize> {
    Some(match matched {
        0 => return None,
        1..=3 => matched - 1,
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
        let (mut one, mut all) = (Acceptance::default(), Acceptance::default());
        assert_eq!(one.rate(0, &all), 0.0);
        assert!((one.rate(2, &all) - 0.3).abs() < 1e-12);
        all.record(2, 8, false);
        // (8 + 8 * 0.3) / 16
        assert!((one.rate(2, &all) - 0.65).abs() < 1e-12);
        for _ in 0..8 {
            one.record(2, 0, true);
        }
        assert!((one.rate(2, &all) - 0.325).abs() < 1e-12);
        // other classes are not affected
        assert!((one.rate(4, &all) - 0.55).abs() < 1e-12);
        // the recent past counts
        for _ in 0..100 {
            one.record(2, 3, false);
        }
        assert!(one.rate(2, &all) > 0.9);
    }
}
