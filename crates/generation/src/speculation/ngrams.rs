//! N-grams of a corpus, from which tokens are guessed where a sequence has not repeated itself yet.

use serde::{Deserialize, Serialize};

/// The least number of occurrences of an n-gram that is kept.
const LEAST_COUNT: usize = 4;

/// Pairs and triples of tokens that are mostly followed by one token.
///
/// An n-gram is kept if it occurs at least four times in the corpus and one token follows it in more than
/// half of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct NGrams {
    /// See [`tokenizer`](Self::tokenizer).
    tokenizer: u32,
    /// Three tokens and the one that follows them, in order.
    three: Vec<[u32; 4]>,
    /// Two tokens and the one that follows them, in order.
    two: Vec<[u32; 3]>,
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    tokenizer: u32,
    three: Vec<[u32; 4]>,
    two: Vec<[u32; 3]>,
}

impl From<NGrams> for Stored {
    fn from(NGrams { tokenizer, three, two }: NGrams) -> Self {
        Self { tokenizer, three, two }
    }
}

impl From<Stored> for NGrams {
    fn from(Stored { tokenizer, mut three, mut two }: Stored) -> Self {
        three.sort_unstable();
        two.sort_unstable();
        Self { tokenizer, three, two }
    }
}

impl NGrams {
    /// Counts the n-grams inside `documents` of ids of a tokenizer with this fingerprint. Keeps at most
    /// `entries` pairs and as many triples: those whose next token occurs most often. Memory: 32 bytes per
    /// token.
    pub fn count<'a>(
        documents: impl IntoIterator<Item = &'a [u32]> + Clone,
        tokenizer: u32,
        entries: usize,
    ) -> Self {
        let two = most_likely(documents.clone(), entries);
        let shorter: Self = Stored { tokenizer, three: Vec::new(), two }.into();
        let mut three: Vec<[u32; 4]> = most_likely(documents, usize::MAX);
        // the others are known from the last two tokens
        three.retain(|[_, a, b, next]| shorter.after(&[*a, *b]) != Some(*next));
        three.truncate(entries);
        let NGrams { two, .. } = shorter;
        Stored { tokenizer, three, two }.into()
    }

    /// The fingerprint of the tokenizer of the ids.
    pub fn tokenizer(&self) -> u32 {
        self.tokenizer
    }

    /// The number of n-grams.
    pub fn len(&self) -> usize {
        self.three.len() + self.two.len()
    }

    /// Whether there are no n-grams.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest id; 0 without n-grams.
    pub fn largest_id(&self) -> u32 {
        let ids = self.three.as_flattened().iter().chain(self.two.as_flattened());
        ids.copied().max().unwrap_or(0)
    }

    /// The token that mostly follows the last tokens of `tokens`, and how many of them decide.
    pub(crate) fn next(&self, tokens: &[u32]) -> Option<(u32, usize)> {
        let [.., a, b] = *tokens else { return None };
        let three = tokens.len().checked_sub(3).and_then(|first| {
            let found = self.three.binary_search_by(|n| n[..3].cmp(&[tokens[first], a, b]));
            found.ok().map(|at| (self.three[at][3], 3))
        });
        three.or_else(|| Some((self.after(&[a, b])?, 2)))
    }

    fn after(&self, pair: &[u32; 2]) -> Option<u32> {
        let at = self.two.binary_search_by(|n| n[..2].cmp(pair)).ok()?;
        Some(self.two[at][2])
    }
}

/// Windows of `N` tokens whose last token mostly follows the others, by falling count; at most `entries`.
fn most_likely<'a, const N: usize>(
    documents: impl IntoIterator<Item = &'a [u32]>,
    entries: usize,
) -> Vec<[u32; N]> {
    let windows = documents.into_iter().flat_map(|ids| ids.windows(N));
    let mut all: Vec<[u32; N]> =
        windows.map(|ids| std::array::from_fn(|place| ids[place])).collect();
    all.sort_unstable();
    let mut kept: Vec<(usize, [u32; N])> = all
        .chunk_by(|a, b| a[..N - 1] == b[..N - 1])
        .filter_map(|same| {
            let most = same.chunk_by(|a, b| a == b).max_by_key(|equal| equal.len())?;
            let frequent = most.len() >= LEAST_COUNT && 2 * most.len() > same.len();
            frequent.then_some((most.len(), most[0]))
        })
        .collect();
    kept.sort_unstable_by_key(|&(count, window)| (std::cmp::Reverse(count), window));
    kept.truncate(entries);
    kept.into_iter().map(|(_, window)| window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n_grams_that_mostly_go_on_in_one_way_are_kept() {
        // 1 2 goes on with 3 in five of nine places, and after 7 with 9 in four of four
        let documents: Vec<Vec<u32>> = vec![
            [0, 1, 2, 3].repeat(5),
            [7, 1, 2, 9].repeat(4),
            // three times only
            [5, 6, 4].repeat(3),
        ];
        let of = |entries| NGrams::count(documents.iter().map(|ids| &ids[..]), 11, entries);
        let ngrams = of(100);
        assert_eq!(ngrams.next(&[1, 2]), Some((3, 2)));
        assert_eq!(ngrams.next(&[8, 1, 2]), Some((3, 2)));
        assert_eq!(ngrams.next(&[7, 1, 2]), Some((9, 3)));
        // known from two tokens
        assert_eq!(ngrams.next(&[0, 1, 2]), Some((3, 2)));
        assert_eq!((ngrams.next(&[5, 6]), ngrams.next(&[2]), ngrams.next(&[])), (None, None, None));
        assert_eq!((ngrams.tokenizer(), ngrams.largest_id()), (11, 9));
        // 0 1 and 1 2 occur five times before their next token
        assert_eq!(of(2).two, [[0, 1, 2], [1, 2, 3]]);
        assert!(of(0).is_empty());
    }
}
