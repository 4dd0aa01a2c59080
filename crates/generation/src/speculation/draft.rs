//! Guesses of the next tokens of a sequence, from n-grams that it contains already.

use std::collections::HashMap;

use super::ngrams::NGrams;

/// The longest n-gram that is looked up.
const LONGEST: usize = 4;
/// The largest number of tokens before a guess that are compared.
const MOST_MATCHED: usize = 16;

/// The tokens of a sequence, with an index of their n-grams.
///
/// A guess is what followed the latest occurrence of the last tokens ("prompt lookup", Saxena, 2023).
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    tokens: Vec<u32>,
    /// The position after the latest occurrence of each n-gram, by its length and the hash of its tokens.
    after: HashMap<(usize, u64), usize>,
}

/// Guessed tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guess {
    /// The tokens in order.
    pub tokens: Vec<u32>,
    /// How many tokens before them are equal to the last tokens of the sequence; 0 without a guess.
    pub matched: usize,
    /// Whether the tokens are from n-grams of a corpus.
    pub from_corpus: bool,
}

impl Draft {
    /// Adds tokens to the sequence.
    pub(crate) fn extend(&mut self, tokens: impl IntoIterator<Item = u32>) {
        for token in tokens {
            let end = self.tokens.len();
            for n in 1..=LONGEST.min(end) {
                self.after.insert(key(&self.tokens[end - n..]), end);
            }
            self.tokens.push(token);
        }
    }

    /// Guesses the next `most` tokens of the sequence, from the sequence itself or, if more tokens match
    /// there, from the n-grams of a corpus.
    pub(crate) fn guess(&self, most: usize, corpus: Option<&NGrams>) -> Guess {
        let own = self.repeated(most);
        let from_corpus = corpus.filter(|_| most > 0).and_then(|corpus| {
            let (first, matched) = corpus.next(&self.tokens)?;
            (matched > own.matched).then(|| {
                let mut tokens = self.tokens[self.tokens.len().saturating_sub(3)..].to_vec();
                let known = tokens.len();
                tokens.push(first);
                while tokens.len() < known + most
                    && let Some((next, _)) = corpus.next(&tokens)
                {
                    tokens.push(next);
                }
                Guess { tokens: tokens.split_off(known), matched, from_corpus: true }
            })
        });
        from_corpus.unwrap_or(own)
    }

    /// Guesses the next `most` tokens of the sequence from the sequence itself.
    fn repeated(&self, most: usize) -> Guess {
        let end = self.tokens.len();
        let found = (1..=LONGEST.min(end)).rev().find_map(|n| {
            let after = *self.after.get(&key(&self.tokens[end - n..]))?;
            // keys are hashes, so the tokens may differ
            let matched = self.matched(after);
            (matched >= n).then_some((after, matched))
        });
        let Some((after, matched)) = found.filter(|_| most > 0) else { return Guess::default() };
        let mut tokens = Vec::with_capacity(most);
        for i in after..after + most {
            // a guess that reaches the end of the sequence goes on with itself
            tokens.push(self.tokens.get(i).copied().unwrap_or_else(|| tokens[i - end]));
        }
        Guess { tokens, matched, from_corpus: false }
    }

    /// How many tokens before `after` are equal to the last ones.
    fn matched(&self, after: usize) -> usize {
        let last = self.tokens.iter().rev();
        let before = self.tokens[..after].iter().rev();
        last.zip(before).take(MOST_MATCHED).take_while(|(a, b)| a == b).count()
    }
}

/// The key of an n-gram.
fn key(tokens: &[u32]) -> (usize, u64) {
    // ids below 65,536 give distinct keys; larger ones can share one
    let hash = tokens.iter().fold(0, |hash: u64, &token| hash.rotate_left(16) ^ u64::from(token));
    (tokens.len(), hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(tokens: &[u32], most: usize) -> Guess {
        let mut draft = Draft::default();
        draft.extend(tokens.iter().copied());
        draft.guess(most, None)
    }

    #[test]
    fn a_guess_continues_the_latest_occurrence_of_the_longest_n_gram() {
        let guess_of = |tokens: &[u32], matched| Guess {
            tokens: tokens.to_vec(),
            matched,
            from_corpus: false,
        };
        for (tokens, most, expected) in [
            (&[][..], 3, guess_of(&[], 0)),
            (&[1, 2, 3], 3, guess_of(&[], 0)),
            (&[1, 2, 3, 1], 3, guess_of(&[2, 3, 1], 1)),
            // the later one of two occurrences
            (&[1, 2, 1, 3, 1], 1, guess_of(&[3], 1)),
            // two tokens that match, before one that matches and is later
            (&[7, 1, 2, 9, 1, 3, 7, 1], 2, guess_of(&[2, 9], 2)),
            // five tokens match, although n-grams have four at most
            (&[1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5], 1, guess_of(&[6], 5)),
            // a period of two tokens goes on
            (&[1, 2, 1, 2, 1], 5, guess_of(&[2, 1, 2, 1, 2], 3)),
            (&[1, 2, 3, 1], 0, guess_of(&[], 0)),
        ] {
            assert_eq!(guess(tokens, most), expected, "{tokens:?}");
        }
    }

    #[test]
    fn a_corpus_guesses_where_more_tokens_match_there() {
        let document = [1, 2, 3, 4, 5].repeat(5);
        let corpus = NGrams::count([&document[..]], 0, 100);
        let guess = |tokens: &[u32]| {
            let mut draft = Draft::default();
            draft.extend(tokens.iter().copied());
            draft.guess(3, Some(&corpus))
        };
        let from_corpus = Guess { tokens: vec![3, 4, 5], matched: 2, from_corpus: true };
        assert_eq!(guess(&[1, 2]), from_corpus);
        // one token matches in the sequence, two in the corpus
        assert_eq!(guess(&[2, 9, 1, 2]), from_corpus);
        // two tokens match in both
        let own = Guess { tokens: vec![9, 1, 2], matched: 2, from_corpus: false };
        assert_eq!(guess(&[1, 2, 9, 1, 2]), own);
        assert_eq!(guess(&[8, 9]), Guess::default());
    }

    #[test]
    fn n_grams_with_equal_keys_are_told_apart() {
        // 1 << 16 in the first place and 1 in the second have one key
        assert_eq!(key(&[0, 1 << 16]), key(&[1, 0]));
        assert_eq!(guess(&[1, 0, 5, 0, 1 << 16], 1), Guess::default());
    }
}
