//! The layout of an epoch as lists in memory.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::layout::{Place, Shape};
use crate::documents::Documents;

/// Lists of all documents and windows: 24 bytes per document and 4 bytes per window.
pub(super) struct Listed {
    /// The documents in stream order, each with the length of its padding on the left.
    pub(super) order: Vec<(usize, usize)>,
    /// For each document of `order`, the position after its end in the stream.
    ends: Vec<usize>,
    /// The windows in the order in which they are used. An empty list means the order of the
    /// stream.
    visits: Vec<u32>,
}

impl Listed {
    pub(super) fn new(documents: &dyn Documents, shape: Shape, epoch: u64) -> Self {
        let block_length = shape.block_length;
        let mut order: Vec<(usize, usize)> = (0..documents.len()).map(|i| (i, 0)).collect();
        let mut visits = Vec::new();
        if let Some(seed) = shape.seed {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch);
            order.shuffle(&mut rng);
            // a draw from a single value would still advance the generator
            if block_length > 1 {
                order.iter_mut().for_each(|(_, left)| *left = rng.random_range(0..block_length));
            }
            visits = (0..shape.windows as u32).collect();
            visits.shuffle(&mut rng);
        }
        let ends = order.iter().scan(0, |end, &(document, left)| {
            let length = left + documents.document_len(document) + 1;
            *end += length.next_multiple_of(block_length);
            Some(*end)
        });
        Self { ends: ends.collect(), order, visits }
    }

    pub(super) fn window(&self, visit: usize) -> usize {
        self.visits.get(visit).map_or(visit, |&window| window as usize)
    }

    pub(super) fn place(&self, position: usize) -> Option<Place> {
        self.place_at(self.ends.partition_point(|&end| end <= position))
    }

    pub(super) fn place_at(&self, index: usize) -> Option<Place> {
        let &(document, left) = self.order.get(index)?;
        let first = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(Place { index, document, left, first, end: self.ends[index] })
    }
}
