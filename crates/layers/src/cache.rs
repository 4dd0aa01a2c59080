//! Key/value caches, allocated once and written in place.

use burn::tensor::{Device, Distribution, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::{AttentionMask, Rotary, attend, merge_heads};

/// Where the next positions of a batch go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Row `i` lives in slot `i`, and every row starts at the same position.
    Same(usize),
    /// Row `i` lives in slot `slots[i]`, and starts at position `starts[i]` there.
    Slots {
        /// No two rows have the same.
        slots: Vec<usize>,
        /// One a row.
        starts: Vec<usize>,
    },
}

impl Positions {
    /// The starts: one for all rows, or one a row.
    pub fn starts(&self) -> Vec<usize> {
        match self {
            Self::Same(start) => vec![*start],
            Self::Slots { starts, .. } => starts.clone(),
        }
    }

    /// The furthest start.
    pub fn furthest(&self) -> usize {
        match self {
            Self::Same(start) => *start,
            Self::Slots { starts, .. } => starts.iter().copied().max().unwrap_or(0),
        }
    }

    /// The same places in positions of which `factor` make up one of these.
    pub fn scaled(&self, factor: usize) -> Self {
        match self {
            Self::Same(start) => Self::Same(start * factor),
            Self::Slots { slots, starts } => Self::Slots {
                slots: slots.clone(),
                starts: starts.iter().map(|start| start * factor).collect(),
            },
        }
    }

    /// Where each of `rows` rows lives.
    fn slots(&self, rows: usize) -> Vec<usize> {
        match self {
            Self::Same(_) => (0..rows).collect(),
            Self::Slots { slots, .. } => slots.clone(),
        }
    }
}

/// The keys and values of one attention layer.
///
/// # Shapes
/// `[slots, heads, capacity, head_dim]` each
#[derive(Clone, Debug)]
pub struct KvCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KvCache {
    /// Room for `capacity` positions in each of `slots` slots.
    pub fn new(
        slots: usize,
        heads: usize,
        capacity: usize,
        head_dim: usize,
        device: &Device,
    ) -> Self {
        let shape = [slots, heads, capacity, head_dim];
        // burn-flex makes its zeros by a copy of zeros, which for a while takes twice the memory
        let empty = || Tensor::full(shape, 0.0, device);
        Self { keys: empty(), values: empty() }
    }

    /// How many positions fit into a slot.
    pub fn capacity(&self) -> usize {
        self.keys.dims()[2]
    }

    /// Gives every slot the same random keys and values: a context of any length to measure with.
    pub fn fill(&mut self) {
        let [slots, heads, capacity, head_dim] = self.keys.dims();
        let (device, normal) = (self.keys.device(), Distribution::Normal(0.0, 1.0));
        for cache in [&mut self.keys, &mut self.values] {
            let random = Tensor::random([1, heads, capacity, head_dim], normal, &device);
            for slot in 0..slots {
                let span = [slot..slot + 1, 0..heads, 0..capacity, 0..head_dim];
                cache.inplace(|cache| cache.slice_assign(span, random.clone()));
            }
        }
    }

    /// Self-attention of new positions at `at`, which are written, over all their rows hold; the
    /// last `keep` of each row attend.
    ///
    /// # Shapes
    /// - `qkv`: the fused projection `[rows, time, heads * 3 * head_dim]`
    /// - `mask`: of all `time` new positions
    /// - output: `[rows, keep, heads * head_dim]`
    ///
    /// # Panics
    /// Those of [`write`](Self::write).
    pub fn attend(
        &mut self,
        qkv: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        at: &Positions,
        keep: usize,
    ) -> Tensor<3> {
        let [rows, time, _] = qkv.dims();
        let [_, heads, _, head_dim] = self.keys.dims();
        if let Some(order) = mask.order() {
            let (slots, cache) = (at.slots(rows), [&mut self.keys, &mut self.values]);
            let angles = rotary.angles();
            if let Some(out) = block_transformer_kernels::cached_attention(
                &qkv, heads, angles, order, &slots, keep, cache,
            ) {
                return out;
            }
        }
        let [query, key, value] = split_qkv(qkv, heads, rotary);
        let (keys, values) = self.write(key, value, at);
        let query = query.narrow(2, time - keep, keep);
        merge_heads(attend(query, keys, values, scale(head_dim), None, &mask.last(keep)))
    }

    /// Writes the keys and values of new positions `[rows, heads, time, head_dim]` at `at`, and
    /// returns what the rows' slots hold from position 0 to the furthest one written.
    ///
    /// # Panics
    /// When the positions do not fit; callers size the cache for what they decode.
    pub fn write(
        &mut self,
        keys: Tensor<4>,
        values: Tensor<4>,
        at: &Positions,
    ) -> (Tensor<4>, Tensor<4>) {
        let [rows, _, time, _] = keys.dims();
        let end = at.furthest() + time;
        assert!(end <= self.capacity(), "KV cache of {} asked for {end}", self.capacity());
        put(&mut self.keys, keys, at);
        put(&mut self.values, values, at);
        let slots = at.slots(rows);
        (held(&self.keys, &slots, end), held(&self.values, &slots, end))
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

/// Writes `[rows, heads, time, head_dim]` into the rows' slots.
fn put(cache: &mut Tensor<4>, new: Tensor<4>, at: &Positions) {
    let [all_slots, heads, capacity, head_dim] = cache.dims();
    let [rows, _, time, _] = new.dims();
    let (slots, starts) = match at {
        Positions::Same(start) => {
            let span = [0..rows, 0..heads, *start..start + time, 0..head_dim];
            return cache.inplace(|cache| cache.slice_assign(span, new));
        }
        Positions::Slots { slots, starts } => (slots, starts),
    };
    let mut places = Vec::with_capacity(rows * heads * time);
    for (slot, start) in slots.iter().zip(starts) {
        for head in 0..heads {
            let first = (slot * heads + head) * capacity + start;
            places.extend((first..first + time).map(|place| place as i64));
        }
    }
    let places = ints(places, &new.device());
    let new = new.reshape([rows * heads * time, head_dim]);
    cache.inplace(|cache| {
        cache
            .reshape([all_slots * heads * capacity, head_dim])
            .select_assign(0, places, new, IndexingUpdateOp::Assign)
            .reshape([all_slots, heads, capacity, head_dim])
    });
}

/// The first `end` positions of the slots; a copy only where they are not the first ones in order.
fn held(cache: &Tensor<4>, slots: &[usize], end: usize) -> Tensor<4> {
    let held = cache.clone().narrow(2, 0, end);
    if slots.iter().enumerate().all(|(row, &slot)| row == slot) {
        return held.narrow(0, 0, slots.len());
    }
    held.select(0, ints(slots.iter().map(|&slot| slot as i64).collect(), &cache.device()))
}

fn ints(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
