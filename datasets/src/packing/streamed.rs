//! The layout of an epoch as functions, for more documents than lists of them fit into memory.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::layout::{Place, Shape};
use super::permutation::{Permutation, mix};
use crate::documents::Documents;

/// Documents between two positions that are kept: 8 bytes for this many documents.
const EVERY: usize = 64;

/// Permutations of documents and windows, and some positions in the stream.
pub(super) struct Streamed {
    shape: Shape,
    documents: usize,
    shuffle: Option<Shuffle>,
    /// The position in the stream of every `EVERY`-th document.
    starts: Vec<usize>,
}

struct Shuffle {
    documents: Permutation,
    windows: Permutation,
    /// The key of the paddings.
    paddings: u64,
}

impl Streamed {
    /// Reads the length of every document once.
    pub(super) fn new(documents: &dyn Documents, shape: Shape, epoch: u64) -> Self {
        let shuffle = shape.seed.map(|seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch);
            let mut key = || rng.random();
            Shuffle {
                documents: Permutation::new(documents.len() as u64, &mut key),
                windows: Permutation::new(shape.windows, &mut key),
                paddings: key(),
            }
        });
        let count = documents.len();
        let mut layout = Self { shape, documents: count, shuffle, starts: Vec::new() };
        let length = |first: usize| -> usize {
            let places = first * EVERY..count.min((first + 1) * EVERY);
            places.map(|index| layout.length(documents, index)).sum()
        };
        let mut starts: Vec<usize> =
            (0..count.div_ceil(EVERY)).into_par_iter().map(length).collect();
        let mut at = 0;
        for start in &mut starts {
            (*start, at) = (at, at + *start);
        }
        layout.starts = starts;
        layout
    }

    /// The document at `index` in the stream, with the length of its padding on the left.
    fn document(&self, index: usize) -> (usize, usize) {
        let Some(shuffle) = &self.shuffle else { return (index, 0) };
        // the upper half of a product with a random number is below the factor
        let draw = u128::from(mix(shuffle.paddings ^ index as u64));
        let left = (draw * self.shape.block_length as u128) >> u64::BITS;
        (shuffle.documents.at(index as u64) as usize, left as usize)
    }

    /// The length in the stream of the document at `index`.
    fn length(&self, documents: &dyn Documents, index: usize) -> usize {
        let (document, left) = self.document(index);
        (left + documents.document_len(document) + 1).next_multiple_of(self.shape.block_length)
    }

    pub(super) fn window(&self, visit: usize) -> usize {
        self.shuffle.as_ref().map_or(visit, |shuffle| shuffle.windows.at(visit as u64) as usize)
    }

    pub(super) fn place(&self, documents: &dyn Documents, position: usize) -> Option<Place> {
        let near = self.starts.partition_point(|&start| start <= position).checked_sub(1)?;
        let mut place = self.place_at(documents, near * EVERY, self.starts[near])?;
        while place.end <= position {
            place = self.place_at(documents, place.index + 1, place.end)?;
        }
        Some(place)
    }

    /// The document at `index`, which starts at the position `first`.
    pub(super) fn place_at(
        &self,
        documents: &dyn Documents,
        index: usize,
        first: usize,
    ) -> Option<Place> {
        if index >= self.documents {
            return None;
        }
        let (document, left) = self.document(index);
        let end = first + self.length(documents, index);
        Some(Place { index, document, left, first, end })
    }
}
