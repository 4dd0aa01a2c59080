//! Key/value caches, allocated once and written in place.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{AttentionMask, Rotary, attend, merge_heads};

/// Where the next positions of a batch go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Every row starts at the same position.
    Same(usize),
    /// Row `i` starts at its own position.
    PerRow(Vec<usize>),
    /// Row `i` lives in slot `slots[i]` of the cache, and starts at its own position there.
    Slots {
        /// No two rows have the same.
        slots: Vec<usize>,
        /// As in [`PerRow`](Self::PerRow).
        starts: Vec<usize>,
    },
}

impl Positions {
    /// The starts: one for all rows, or one a row.
    pub fn starts(&self) -> Vec<usize> {
        match self {
            Self::Same(start) => vec![*start],
            Self::PerRow(starts) | Self::Slots { starts, .. } => starts.clone(),
        }
    }

    /// Where each of `rows` rows lives.
    fn slots(&self, rows: usize) -> Vec<usize> {
        match self {
            Self::Slots { slots, .. } => slots.clone(),
            _ => (0..rows).collect(),
        }
    }

    /// The furthest start.
    pub fn furthest(&self) -> usize {
        match self {
            Self::Same(start) => *start,
            Self::PerRow(starts) | Self::Slots { starts, .. } => {
                starts.iter().copied().max().unwrap_or(0)
            }
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

    /// Self-attention of new positions at `at`, which are written, over all their rows hold.
    ///
    /// # Shapes
    /// - `qkv`: the fused projection `[rows, time, heads * 3 * head_dim]`
    /// - output: `[rows, time, heads * head_dim]`
    ///
    /// # Panics
    /// Those of [`write`](Self::write).
    pub fn attend(
        &mut self,
        qkv: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        at: &Positions,
    ) -> Tensor<3> {
        let [rows, time, _] = qkv.dims();
        let [_, heads, _, head_dim] = self.keys.dims();
        if let Some(order) = mask.order() {
            let (slots, cache) = (at.slots(rows), [&mut self.keys, &mut self.values]);
            let angles = rotary.angles();
            if let Some(out) =
                zoo_kernels::cached_attention(&qkv, heads, angles, order, &slots, cache)
            {
                return out;
            }
        }
        let [query, key, value] = split_qkv(qkv, heads, rotary);
        let (keys, values) = self.write(key, value, at);
        debug_assert_eq!(query.dims(), [rows, heads, time, head_dim]);
        merge_heads(attend(query, keys, values, scale(head_dim), None, mask))
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

/// Queries and keys, rotated, and values, `[rows, heads, time, head_dim]` each, of the fused
/// projection `[rows, time, heads * 3 * head_dim]`, which holds a head's three side by side.
pub(crate) fn split_qkv(qkv: Tensor<3>, heads: usize, rotary: &Rotary) -> [Tensor<4>; 3] {
    let [rows, time, width] = qkv.dims();
    let head_dim = width / heads / 3;
    let qkv = qkv.reshape([rows, time, heads, 3 * head_dim]).swap_dims(1, 2); // [r, h, t, 3 * d]
    let part = |i: usize| qkv.clone().narrow(3, i * head_dim, head_dim);
    [rotary.apply(part(0)), rotary.apply(part(1)), part(2)]
}

/// What scores are multiplied by: `head_dim^-0.5`.
pub(crate) fn scale(head_dim: usize) -> f64 {
    (head_dim as f64).powf(-0.5)
}

fn put(cache: &mut Tensor<4>, new: Tensor<4>, at: &Positions, end: usize) -> Tensor<4> {
    let [_, heads, _, head_dim] = cache.dims();
    let [rows, _, time, _] = new.dims();
    if let Positions::Same(start) = at {
        let span = [0..rows, 0..heads, *start..start + time, 0..head_dim];
        cache.inplace(|cache| cache.slice_assign(span, new));
        return cache.clone().narrow(2, 0, end);
    }
    let slots = at.slots(rows);
    for (row, (&slot, start)) in slots.iter().zip(at.starts()).enumerate() {
        let span = [slot..slot + 1, 0..heads, start..start + time, 0..head_dim];
        let row = new.clone().narrow(0, row, 1);
        cache.inplace(|cache| cache.slice_assign(span, row));
    }
    let held = cache.clone().narrow(2, 0, end);
    if !matches!(at, Positions::Slots { .. }) {
        return held;
    }
    let slots: Vec<i64> = slots.iter().map(|&slot| slot as i64).collect();
    held.select(0, Tensor::<1, Int>::from_data(TensorData::new(slots, [rows]), &new.device()))
}
