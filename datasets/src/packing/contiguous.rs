//! The layout of an epoch of contiguous windows.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::layout::{Place, Shape};
use super::permutation::Permutation;
use super::streamed::Streamed;
use crate::documents::Documents;

/// The documents in their order, without padding, as a ring: the first document follows the last.
/// With a seed, windows are shuffled and the first one starts at a random position, so that windows
/// and blocks begin at other tokens in each epoch.
pub(super) struct Contiguous {
    stream: Streamed,
    shuffle: Option<(Permutation, u64)>,
    /// Tokens of the ring.
    tokens: u64,
}

impl Contiguous {
    /// Reads the length of every document once. `tokens` is the sum of the lengths, EOS included.
    pub(super) fn new(documents: &dyn Documents, shape: Shape, tokens: u64, epoch: u64) -> Self {
        let shuffle = shape.seed.map(|seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch);
            let windows = Permutation::new(shape.windows, || rng.random());
            (windows, rng.random_range(0..tokens))
        });
        let shape = Shape { block_length: 1, seed: None, ..shape };
        Self { stream: Streamed::new(documents, shape, epoch), shuffle, tokens }
    }

    /// The position of the first token of the window of `context` tokens that is used at `visit`.
    pub(super) fn start(&self, visit: u64, context: u64) -> usize {
        let (window, first) = match &self.shuffle {
            Some((windows, first)) => (windows.at(visit), *first),
            None => (visit, 0),
        };
        ((first + window * context) % self.tokens) as usize
    }

    pub(super) fn place(&self, documents: &dyn Documents, position: usize) -> Option<Place> {
        self.stream.place(documents, position)
    }

    /// The document after `place`; after the last one, the first.
    pub(super) fn after(&self, documents: &dyn Documents, place: Place) -> Option<Place> {
        let next = self.stream.place_at(documents, place.index + 1, place.end);
        next.or_else(|| self.stream.place_at(documents, 0, 0))
    }
}

#[cfg(test)]
mod tests {
    use block_transformer_text::EOS;
    use proptest::prelude::*;

    use crate::packing::tests::contiguous;

    /// The stream of documents of the given lengths.
    fn stream(lengths: &[usize]) -> Vec<u32> {
        let ids = |(d, &n): (usize, &usize)| {
            (0..n).map(move |i| (d * 1000 + i + 2) as u32).chain([EOS]).collect::<Vec<u32>>()
        };
        lengths.iter().enumerate().flat_map(ids).collect()
    }

    #[test]
    fn windows_without_a_seed_are_the_parts_of_the_stream_for_every_block_length() {
        let lengths = [5, 0, 9, 2, 31];
        let stream = stream(&lengths);
        for length in [1, 2, 4, 8] {
            let packing = contiguous(&lengths, length, 8, None);
            assert_eq!(packing.windows_per_epoch() as usize, stream.len() / 8);
            for (i, part) in stream.chunks_exact(8).enumerate() {
                let window = packing.window(i as u64);
                assert_eq!((&*window.ids, window.is_token), (part, vec![true; 8]));
            }
        }
    }

    proptest! {
        /// The windows of an epoch are neighbours in the ring from some token on, each once.
        #[test]
        fn windows_of_an_epoch_are_parts_of_the_ring(
            lengths in prop::collection::vec(0_usize..30, 1..200),
            length in 1_usize..6,
            blocks in 1_usize..5,
            seed: u64,
            epoch in 0_u64..3,
        ) {
            let (stream, context) = (stream(&lengths), length * blocks);
            prop_assume!(stream.len() >= context);
            let packing = contiguous(&lengths, length, context, Some(seed));
            let count = stream.len() / context;
            prop_assert_eq!(packing.windows_per_epoch() as usize, count);
            let mut found: Vec<_> = packing.batch(epoch, count).into_iter().map(|w| w.ids).collect();
            found.sort();
            let ring = |first: usize| {
                let ids = stream.iter().cycle().skip(first).take(count * context).copied();
                let ids: Vec<u32> = ids.collect();
                let mut windows: Vec<_> = ids.chunks_exact(context).map(<[u32]>::to_vec).collect();
                windows.sort();
                windows
            };
            prop_assert!((0..stream.len()).any(|first| ring(first) == found));
        }
    }

    #[test]
    fn epochs_begin_at_other_tokens() {
        let lengths = [1000];
        let packing = contiguous(&lengths, 4, 8, Some(1));
        // the place in its block of the token 0 of the document
        let phase = |epoch: u64| {
            let windows = packing.batch(epoch, packing.windows_per_epoch() as usize);
            let firsts = windows.iter().map(|window| window.ids[0]).filter(|id| *id > 1);
            firsts.min().map(|id| id % 4)
        };
        let phases: std::collections::HashSet<_> = (0..40).map(phase).collect();
        assert_eq!(phases.len(), 4);
    }
}
