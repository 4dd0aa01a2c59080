//! Key/value caches, allocated once and written in place.

use block_transformer_kernels::{
    CachedRows, INTEGER_CACHE_SCALE, Indices, empty_integer_cache, int_tensor, integer_cache,
};
use burn::tensor::{DType, Device, Distribution, IndexingUpdateOp, Tensor};

use crate::attention::{attend, merge_heads, score_scale, split_qkv};
use crate::places::{Part, Places};
use crate::positions::Positions;

mod part;

pub use part::KvPart;

/// The keys and values of one attention layer.
///
/// # Shapes
/// `[slots, heads, capacity, head_dim]` each
#[derive(Clone, Debug)]
pub struct KvCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

/// The KV caches of all layers of a stack.
pub type StackCache = Vec<KvCache>;

impl KvCache {
    /// An empty cache of `[slots, heads, capacity, head_dim]` keys and values in `format`: a float format,
    /// or `DType::I8` for integers with a scale per key and value, which the kernels of burn-flex read.
    ///
    /// # Panics
    /// With integers on another device.
    pub fn new(shape: [usize; 4], format: DType, device: &Device) -> Self {
        if format == DType::I8 {
            let empty = || empty_integer_cache(shape, device).expect("the device is burn-flex");
            return Self { keys: empty(), values: empty() };
        }
        // burn-flex copies the zeros of `Tensor::zeros`, which temporarily needs twice the memory
        let empty = || Tensor::full(shape, 0.0, (device, format));
        Self { keys: empty(), values: empty() }
    }

    /// Fills every slot with the same random keys and values. Only benchmarks use this, to have a
    /// context of any length without running the model over it.
    pub fn fill_random(&mut self) {
        let [slots, heads, capacity, head_dim] = self.keys.dims();
        let (device, normal) = (self.keys.device(), Distribution::Normal(0.0, 1.0));
        let format = self.keys.dtype();
        if let DType::QFloat(_) = format {
            let shape = [1, heads, capacity, head_dim - INTEGER_CACHE_SCALE];
            for cache in [&mut self.keys, &mut self.values] {
                let random = Tensor::random(shape, normal, &device);
                *cache = integer_cache(&random, slots).expect("the cache has integers already");
            }
            return;
        }
        for cache in [&mut self.keys, &mut self.values] {
            let random = Tensor::<4>::random([1, heads, capacity, head_dim], normal, &device);
            let random = random.cast(format);
            for slot in 0..slots {
                let span = [slot..slot + 1, 0..heads, 0..capacity, 0..head_dim];
                cache.inplace(|cache| cache.slice_assign(span, random.clone()));
            }
        }
    }

    /// Appends the new positions `places` to the cache. Then the last `keep` positions of each row, or all,
    /// attend to the row's positions in the cache.
    ///
    /// # Shapes
    /// - `qkv`: the fused projection `[rows, time, heads * 3 * head_dim]`; `[1, all positions, ...]` for rows with
    ///   lengths of their own
    /// - output: `[rows, keep, heads * head_dim]`; like `qkv` if all positions attend
    ///
    /// # Panics
    /// When the positions exceed the capacity. The kernel of burn-flex also panics when a slot
    /// does not exist or two rows share a slot.
    pub(crate) fn attend(
        &mut self,
        qkv: Tensor<3>,
        places: &Places,
        keep: Option<usize>,
    ) -> Tensor<3> {
        let [_, time, width] = qkv.dims();
        let Places { at, slots, rotary, mask, parts } = places;
        let device = qkv.device();
        let kept = keep.unwrap_or(time);
        let hidden = || mask.last(kept).hidden(&device);
        if let Some(out) = block_transformer_kernels::cached_attention(
            &qkv,
            rotary.angles(),
            mask.causal(),
            &hidden,
            CachedRows { slots, lengths: at.lengths(), keep },
            [&mut self.keys, &mut self.values],
        ) {
            return out;
        }
        let [_, heads, ..] = self.keys.dims();
        if at.lengths().is_some() {
            let mut first = 0;
            let attend = |Part { time, places }: &Part| {
                let (rows, all) = (places.slots.len(), places.slots.len() * time);
                let qkv = qkv.clone().narrow(1, first, all).reshape([rows, *time, width]);
                first += all;
                let out = self.attend(qkv, places, keep);
                if keep.is_none() { out.reshape([1, all, width / 3]) } else { out }
            };
            let parts = parts.iter().map(attend).collect();
            return Tensor::cat(parts, usize::from(keep.is_none()));
        }
        let [query, key, value] = split_qkv(qkv, heads, rotary);
        let (keys, values) = self.write(key, value, (at, slots));
        let query = query.narrow(2, time - kept, kept);
        merge_heads(attend(query, keys, values, score_scale(width / heads / 3), None, hidden()))
    }

    /// Writes the keys and values of new positions `[rows, heads, time, head_dim]`. Returns the
    /// slots of the rows, from position 0 to the furthest new position of any row.
    ///
    /// # Panics
    /// When the positions exceed the capacity.
    pub(crate) fn write(
        &mut self,
        keys: Tensor<4>,
        values: Tensor<4>,
        (at, slots): (&Positions, &Indices),
    ) -> (Tensor<4>, Tensor<4>) {
        let ([_, _, time, _], [_, _, capacity, _]) = (keys.dims(), self.keys.dims());
        let end = at.end(time);
        assert!(end <= capacity, "{end} positions exceed a KV cache of {capacity}");
        let (computed, format) = (keys.dtype(), self.keys.dtype());
        put(&mut self.keys, keys.cast(format), at);
        put(&mut self.values, values.cast(format), at);
        let held = |cache| held(cache, slots, end).cast(computed);
        (held(&self.keys), held(&self.values))
    }
}

/// Writes `[rows, heads, time, head_dim]` to the slots of the rows.
fn put(cache: &mut Tensor<4>, new: Tensor<4>, at: &Positions) {
    let [all_slots, heads, capacity, head_dim] = cache.dims();
    let [rows, _, time, _] = new.dims();
    let (slots, starts) = match at {
        Positions::Same(start) => {
            let span = [0..rows, 0..heads, *start..start + time, 0..head_dim];
            return cache.inplace(|cache| cache.slice_assign(span, new));
        }
        Positions::Slots { slots, starts } => (slots, starts),
        Positions::Ragged { .. } => unreachable!("rows of equal length are written together"),
    };
    assert!(!slots.is_bounded() && !starts.is_bounded(), "no kernel writes at bounded positions");
    let places = slots.iter().zip(starts.iter()).flat_map(|(slot, start)| {
        (0..heads).flat_map(move |head| {
            let first = (slot * heads + head) * capacity + start;
            first..first + time
        })
    });
    let places = int_tensor(places, &new.device());
    let new = new.reshape([rows * heads * time, head_dim]);
    cache.inplace(|cache| {
        cache
            .reshape([all_slots * heads * capacity, head_dim])
            .select_assign(0, places, new, IndexingUpdateOp::Assign)
            .reshape([all_slots, heads, capacity, head_dim])
    });
}

/// The first `end` positions of the slots. The result is a view if they are the first slots in
/// order, otherwise a copy.
fn held(cache: &Tensor<4>, slots: &Indices, end: usize) -> Tensor<4> {
    let held = cache.clone().narrow(2, 0, end);
    if slots.iter().enumerate().all(|(row, &slot)| row == slot) {
        return held.narrow(0, 0, slots.len());
    }
    held.select(0, slots.tensor(&cache.device()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotary::Rotary;

    /// One head of width 1, so that a cache is a table of slots by positions.
    fn row(values: &[f32], rows: usize, device: &Device) -> Tensor<4> {
        let time = values.len() / rows;
        Tensor::<1>::from_floats(values, device).reshape([rows, 1, time, 1])
    }

    fn list(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    #[test]
    fn writes_go_to_their_slots_and_return_what_the_slots_hold() {
        #[expect(deprecated, reason = "supported for as long as burn has it")]
        for device in [Device::flex(), Device::ndarray()] {
            let mut cache = KvCache::new([3, 1, 4, 1], DType::F32, &device);
            let mut write = |at: Positions, keys: &[f32], rows: usize| {
                let values: Vec<f32> = keys.iter().map(|key| -key).collect();
                let (keys, values) = (row(keys, rows, &device), row(&values, rows, &device));
                let (keys, values) = cache.write(keys, values, (&at, &at.slots(rows)));
                let keys = list(keys);
                assert_eq!(list(values), keys.iter().map(|key| -key).collect::<Vec<_>>());
                (keys, list(cache.keys.clone()))
            };
            let all = [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
            let (held, stored) = write(Positions::Same(0), &[1.0, 2.0, 3.0, 4.0], 2);
            assert_eq!((held, stored), (vec![1.0, 2.0, 3.0, 4.0], all.to_vec()));
            // row 0 continues slot 1, row 1 starts in slot 2; slot 0 is not part of the batch
            let at = Positions::Slots { slots: vec![1, 2].into(), starts: vec![2, 0].into() };
            let (held, stored) = write(at, &[5.0, 6.0], 2);
            assert_eq!(held, [3.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
            let all = [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 5.0, 0.0, 6.0, 0.0, 0.0, 0.0];
            assert_eq!(stored, all);
            // a new sequence overwrites slot 1
            let at = Positions::Slots { slots: vec![1].into(), starts: vec![0].into() };
            let (held, stored) = write(at, &[7.0], 1);
            assert_eq!((held, stored[4..8].to_vec()), (vec![7.0], vec![7.0, 4.0, 5.0, 0.0]));
        }
    }

    #[test]
    #[should_panic(expected = "5 positions exceed a KV cache of 4")]
    fn writes_beyond_the_capacity_panic() {
        let device = Device::flex();
        let at = Positions::Same(3);
        let new = || row(&[1.0, 2.0], 1, &device);
        KvCache::new([1, 1, 4, 1], DType::F32, &device).write(new(), new(), (&at, &at.slots(1)));
    }

    #[test]
    fn attention_over_the_cache_has_the_values_computed_by_hand() {
        // one head of width 2 without rotation, values 1 and 4 with keys that score 0 and ln 2:
        // probabilities 1/3 and 2/3
        let table = block_transformer_kernels::RotaryTable::new(0, 1e4);
        let rotary = |_: &Positions, _| Rotary::new(table.angles(vec![0], 1));
        let ln2 = std::f32::consts::LN_2 * std::f32::consts::SQRT_2;
        #[expect(deprecated, reason = "supported for as long as burn has it")]
        for device in [Device::flex(), Device::ndarray()] {
            let mut cache = KvCache::new([2, 1, 2, 2], DType::F32, &device);
            let mut step = |start: usize, qkv: [f32; 6]| -> Vec<f32> {
                let at = Positions::Slots { slots: vec![1].into(), starts: vec![start].into() };
                let qkv = Tensor::<1>::from_floats(qkv, &device).reshape([1, 1, 6]);
                let out = cache.attend(qkv, &Places::new(at, [1, 1], 1, &rotary), None);
                out.into_data().iter::<f32>().collect()
            };
            let first = step(0, [9.0, 9.0, 0.0, 5.0, 1.0, 10.0]);
            assert_eq!(first, [1.0, 10.0]);
            let second = step(1, [1.0, 0.0, ln2, 7.0, 4.0, 40.0]);
            for (found, expected) in second.iter().zip([3.0, 30.0]) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }
}
