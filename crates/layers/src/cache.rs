//! Key/value caches, allocated once and written in place.

use burn::tensor::{Device, Tensor};

/// Where the next positions of a batch go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Every row starts at the same position.
    Same(usize),
    /// Row `i` starts at its own position.
    PerRow(Vec<usize>),
}

impl Positions {
    /// The starts: one for all rows, or one a row.
    pub fn starts(&self) -> Vec<usize> {
        match self {
            Self::Same(start) => vec![*start],
            Self::PerRow(starts) => starts.clone(),
        }
    }

    /// The furthest start.
    pub fn furthest(&self) -> usize {
        match self {
            Self::Same(start) => *start,
            Self::PerRow(starts) => starts.iter().copied().max().unwrap_or(0),
        }
    }
}

/// The keys and values of one attention layer.
///
/// # Shapes
/// `[batch, heads, capacity, head_dim]` each
#[derive(Clone, Debug)]
pub struct KvCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KvCache {
    /// Room for `capacity` positions of `batch` sequences.
    pub fn new(
        batch: usize,
        heads: usize,
        capacity: usize,
        head_dim: usize,
        device: &Device,
    ) -> Self {
        let shape = [batch, heads, capacity, head_dim];
        Self { keys: Tensor::zeros(shape, device), values: Tensor::zeros(shape, device) }
    }

    /// How many positions fit.
    pub fn capacity(&self) -> usize {
        self.keys.dims()[2]
    }

    /// Writes the keys and values of new positions `[batch, heads, time, head_dim]` at `at`, and
    /// returns all of them from position 0 to the furthest one written.
    ///
    /// # Panics
    /// When the positions do not fit; callers size the cache for what they decode.
    pub fn write(
        &mut self,
        keys: Tensor<4>,
        values: Tensor<4>,
        at: &Positions,
    ) -> (Tensor<4>, Tensor<4>) {
        let time = keys.dims()[2];
        let end = at.furthest() + time;
        assert!(end <= self.capacity(), "KV cache of {} asked for {end}", self.capacity());
        (put(&mut self.keys, keys, at, end), put(&mut self.values, values, at, end))
    }
}

fn put(cache: &mut Tensor<4>, new: Tensor<4>, at: &Positions, end: usize) -> Tensor<4> {
    let [batch, heads, _, head_dim] = cache.dims();
    let time = new.dims()[2];
    match at {
        Positions::Same(start) => {
            let span = [0..batch, 0..heads, *start..start + time, 0..head_dim];
            cache.inplace(|cache| cache.slice_assign(span, new));
        }
        Positions::PerRow(starts) => {
            for (row, start) in starts.iter().enumerate() {
                let span = [row..row + 1, 0..heads, *start..start + time, 0..head_dim];
                let row = new.clone().narrow(0, row, 1);
                cache.inplace(|cache| cache.slice_assign(span, row));
            }
        }
    }
    cache.clone().narrow(2, 0, end)
}
