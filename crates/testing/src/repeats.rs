//! Documents whose tokens repeat at known distances, so that the best possible loss at each position
//! has a closed form.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Number of special ids: EOS and padding.
const SPECIAL: u32 = 2;

/// A source of documents with a known best possible loss.
///
/// There is one kind of document per distance, each with `symbols` ids of its own. In a document of
/// kind `k`, a token repeats the token `distances[k]` positions before it with probability
/// `repeated`; otherwise it is drawn uniformly from the ids of the kind.
#[derive(Clone, Debug)]
pub struct Repeats {
    symbols: u32,
    distances: Vec<usize>,
    repeated: f64,
}

impl Repeats {
    /// A source with one kind of document for each of `distances`.
    ///
    /// # Panics
    /// When there are fewer than two symbols or no distance, a distance is 0, or `repeated` is not
    /// between 0 and 1.
    pub fn new(symbols: u32, distances: &[usize], repeated: f64) -> Self {
        assert!(symbols > 1 && !distances.is_empty() && (0.0..=1.0).contains(&repeated));
        assert!(distances.iter().all(|&distance| distance > 0));
        Self { symbols, distances: distances.into(), repeated }
    }

    /// The distance of each kind.
    pub fn distances(&self) -> &[usize] {
        &self.distances
    }

    /// Number of ids, including the two special ones.
    pub fn vocab_size(&self) -> usize {
        (SPECIAL + self.symbols * self.distances.len() as u32) as usize
    }

    /// A document of kind `kind` with `length` tokens.
    pub fn document(&self, kind: usize, length: usize, seed: u64) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut ids: Vec<u32> = Vec::with_capacity(length);
        for t in 0..length {
            let source = t.checked_sub(self.distances[kind]);
            let fresh = SPECIAL + kind as u32 * self.symbols + rng.random_range(0..self.symbols);
            ids.push(match source {
                Some(source) if rng.random_bool(self.repeated) => ids[source],
                _ => fresh,
            });
        }
        ids
    }

    /// The lowest possible expected loss, in nats, at a position (counted from 0, at least 1) of
    /// windows cut from documents of kind `kind`.
    ///
    /// Before position `distances[kind]`, the token does not depend on the tokens before it in the
    /// window, and the loss is [`unknown`](Self::unknown). From there on, the token that is repeated
    /// is in the window, and the loss is [`known`](Self::known).
    pub fn best_loss(&self, kind: usize, position: usize) -> f64 {
        if position < self.distances[kind] { self.unknown() } else { self.known() }
    }

    /// The best loss if the repeated token is not in the window: `ln symbols`.
    pub fn unknown(&self) -> f64 {
        f64::from(self.symbols).ln()
    }

    /// The best loss if the repeated token is in the window: the entropy
    /// `-q ln q - (symbols - 1) r ln r` of a token that equals it with probability `q = repeated + r`,
    /// and each other symbol with probability `r = (1 - repeated) / symbols`.
    pub fn known(&self) -> f64 {
        let r = (1.0 - self.repeated) / f64::from(self.symbols);
        let entropy = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        entropy(self.repeated + r) + f64::from(self.symbols - 1) * entropy(r)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss of predicting a token from the token `distance` positions before it, measured by
    /// counting.
    fn counted(ids: &[u32], source: &Repeats, distance: usize) -> f64 {
        let pairs: Vec<bool> = ids.iter().zip(&ids[distance..]).map(|(a, b)| a == b).collect();
        let q = pairs.iter().filter(|&&same| same).count() as f64 / pairs.len() as f64;
        let others = f64::from(source.symbols - 1);
        -q * q.ln() - (1.0 - q) * ((1.0 - q) / others).ln()
    }

    #[test]
    fn the_best_losses_agree_with_counting() {
        let source = Repeats::new(8, &[5, 12], 0.9);
        for kind in [0, 1] {
            let distance = source.distances()[kind];
            let ids = source.document(kind, 200_000, 3);
            assert!((counted(&ids, &source, distance) - source.known()).abs() < 0.01);
            // tokens are independent at a distance that is not a multiple of the true one
            for other in [1, distance - 1, distance + 1] {
                assert!((counted(&ids, &source, other) - source.unknown()).abs() < 0.001);
            }
            assert_eq!(source.best_loss(kind, distance - 1), source.unknown());
            assert_eq!(source.best_loss(kind, distance), source.known());
            assert!(ids.iter().all(|&id| (SPECIAL..source.vocab_size() as u32).contains(&id)));
        }
        assert_eq!(Repeats::new(4, &[1], 1.0).known(), 0.0);
        assert!((Repeats::new(4, &[1], 0.0).known() - 4f64.ln()).abs() < 1e-12);
    }
}
