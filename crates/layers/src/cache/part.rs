//! Copies of the first positions of a slot.

use block_transformer_kernels::{integer_cache_rows, integer_rows};
use burn::tensor::kind::Basic;
use burn::tensor::{DType, Int, Tensor};

use super::KvCache;

/// The keys and values of the first positions of a slot, in memory of their own.
#[derive(Clone, Debug)]
pub struct KvPart {
    keys: Rows,
    values: Rows,
}

/// `[1, heads, positions, head_dim]`
#[derive(Clone, Debug)]
enum Rows {
    Floats(Tensor<4>),
    /// With the scale of each row at its end.
    Integers(Tensor<4, Int>),
}

impl KvCache {
    /// Copies the first `positions` positions of `slot`.
    pub fn part(&self, slot: usize, positions: usize) -> KvPart {
        let rows = |cache: &Tensor<4>| match integer_rows(cache.clone()) {
            Some(integers) => Rows::Integers(copied(integers, slot, positions)),
            None => Rows::Floats(copied(cache.clone(), slot, positions)),
        };
        KvPart { keys: rows(&self.keys), values: rows(&self.values) }
    }

    /// Replaces the first positions of `slot` by those of `part`, which must be of a cache with the same format,
    /// heads and width.
    pub fn set_part(&mut self, slot: usize, part: &KvPart) {
        for (cache, rows) in [(&mut self.keys, &part.keys), (&mut self.values, &part.values)] {
            cache.inplace(|cache| match rows {
                Rows::Floats(rows) => replaced(cache, slot, rows),
                Rows::Integers(rows) => {
                    let integers = integer_rows(cache).expect("the cache has integers");
                    let cache = integer_cache_rows(replaced(integers, slot, rows));
                    cache.expect("they are those of a cache")
                }
            });
        }
    }
}

impl KvPart {
    /// Bytes of the keys and values.
    pub fn bytes(&self) -> u64 {
        self.keys.bytes() + self.values.bytes()
    }
}

impl Rows {
    fn bytes(&self) -> u64 {
        let (shape, format): ([usize; 4], DType) = match self {
            Self::Floats(rows) => (rows.dims(), rows.dtype()),
            Self::Integers(rows) => (rows.dims(), rows.dtype()),
        };
        shape.iter().product::<usize>() as u64 * format.size() as u64
    }
}

/// A view of the positions would keep the whole cache alive, which could then not be written in place.
fn copied<K: Basic>(cache: Tensor<4, K>, slot: usize, positions: usize) -> Tensor<4, K> {
    let [_, heads, _, width] = cache.dims();
    let empty = Tensor::empty([1, heads, positions, width], (&cache.device(), cache.dtype()));
    let view = cache.narrow(0, slot, 1).narrow(2, 0, positions);
    empty.slice_assign([0..1, 0..heads, 0..positions, 0..width], view)
}

fn replaced<K: Basic>(cache: Tensor<4, K>, slot: usize, rows: &Tensor<4, K>) -> Tensor<4, K> {
    let [_, heads, positions, width] = rows.dims();
    cache.slice_assign([slot..slot + 1, 0..heads, 0..positions, 0..width], rows.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn formats() -> Vec<(Device, DType)> {
        #[expect(deprecated, reason = "supported for as long as burn has it")]
        let ndarray = Device::ndarray();
        let flex = [DType::F32, DType::BF16, DType::I8].map(|format| (Device::flex(), format));
        [flex.to_vec(), vec![(ndarray, DType::F32)]].concat()
    }

    /// The stored elements of every key and value.
    fn elements(cache: &KvCache) -> Vec<f32> {
        let of = |cache: &Tensor<4>| match integer_rows(cache.clone()) {
            Some(rows) => rows.into_data().iter::<i8>().map(f32::from).collect::<Vec<_>>(),
            None => cache.clone().into_data().iter::<f32>().collect(),
        };
        [of(&cache.keys), of(&cache.values)].concat()
    }

    #[test]
    fn a_part_moves_to_another_slot_and_nothing_else_changes() {
        let (slots, heads, capacity, width) = (3, 2, 5, 4);
        for (device, format) in formats() {
            let new = || KvCache::new([slots, heads, capacity, width], format, &device);
            let mut from = new();
            from.fill_random();
            let (random, mut to) = (elements(&from), new());
            let part = from.part(1, 3);
            // a part does not share the memory of its cache
            from.set_part(1, &new().part(0, 5));
            to.set_part(2, &part);
            let (found, row) = (elements(&to), random.len() / 2 / slots / heads / capacity);
            let scale = if format == DType::I8 { 4 } else { 0 };
            assert_eq!(row, width + scale, "{format:?}");
            assert_eq!(part.bytes(), (2 * heads * 3 * row * format.size()) as u64, "{format:?}");
            let mut changed = 0;
            for (i, (found, random)) in found.iter().zip(&random).enumerate() {
                let (position, slot) = (i / row % capacity, i / row / capacity / heads % slots);
                // all slots have the same random contents
                let expected = if slot == 2 && position < 3 { *random } else { 0.0 };
                assert_eq!(found.to_bits(), expected.to_bits(), "{format:?}, element {i}");
                changed += usize::from(*found != 0.0);
            }
            assert!(changed > 0);
            let left = elements(&from);
            let of_slot = |i: usize| i / row / capacity / heads % slots;
            for (i, (left, random)) in left.iter().zip(&random).enumerate() {
                let expected = if of_slot(i) == 1 { 0.0 } else { *random };
                assert_eq!(left.to_bits(), expected.to_bits(), "{format:?}, element {i}");
            }
        }
    }
}
