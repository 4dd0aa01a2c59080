//! Angles of the rotary position embedding (Su et al., arXiv 2104.09864).

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use crate::indices::Indices;
use crate::per_device::PerDevice;

/// Cosines and sines for positions from 0 on, computed once: the table grows to the largest
/// position that was requested, and clones share it.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    rotated: usize,
    base: f64,
    /// The number by which positions are divided.
    divisor: f64,
    table: Arc<Mutex<Arc<Table>>>,
}

/// The angles of all positions below a limit.
#[derive(Debug)]
struct Table {
    /// `[positions][half]`
    cos: Vec<f32>,
    /// `[positions][half]`
    sin: Vec<f32>,
    positions: usize,
    half: usize,
    tensors: PerDevice<[Tensor<2>; 2]>,
}

impl RotaryTable {
    /// The table for heads whose first `rotated` dimensions are rotated: at position `p`, pair `i`
    /// of dimensions turns by `p * base^(-2i / rotated)`.
    pub fn new(rotated: usize, base: f64) -> Self {
        Self::divided(rotated, base, 1.0)
    }

    /// [`new`](Self::new) with positions that are divided by `divisor`.
    pub fn divided(rotated: usize, base: f64, divisor: f64) -> Self {
        let table = Arc::new(Mutex::new(Arc::new(Table::new(0, rotated, base, divisor))));
        Self { rotated, base, divisor, table }
    }

    /// A table of its own, for positions below `positions` and as many more as are requested.
    pub fn with_positions(&self, positions: usize) -> Self {
        let table = Table::new(positions, self.rotated, self.base, self.divisor);
        Self { table: Arc::new(Mutex::new(Arc::new(table))), ..*self }
    }

    /// Rotated dimensions of a head.
    pub fn rotated(&self) -> usize {
        self.rotated
    }

    /// The angles of `positions` `[rows][time]`.
    ///
    /// # Panics
    /// When the rows differ in length.
    pub fn angles(&self, positions: impl Into<Indices>, rows: usize) -> RotaryAngles {
        let positions = positions.into();
        assert!(positions.len().is_multiple_of(rows), "rows of positions differ in length");
        let end = positions.iter().max().map_or(0, |last| last + 1);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.positions < end {
            let &Self { rotated, base, divisor, .. } = self;
            *table = Arc::new(Table::new(end.next_power_of_two(), rotated, base, divisor));
        }
        let time = positions.len() / rows;
        RotaryAngles { table: table.clone(), positions, rows, time }
    }
}

impl Table {
    fn new(positions: usize, rotated: usize, base: f64, divisor: f64) -> Self {
        let half = rotated / 2;
        let inverse = |i| base.powf(-2.0 * i as f64 / rotated as f64) / divisor;
        let inverse: Vec<f32> = (0..half).map(|i| inverse(i) as f32).collect();
        let (sin, cos) = (0..positions)
            .flat_map(|position| {
                inverse.iter().map(move |inverse| (position as f32 * inverse).sin_cos())
            })
            .unzip();
        Self { cos, sin, positions, half, tensors: PerDevice::default() }
    }
}

/// Cosines and sines of the rotated dimensions of a head, for a sequence of positions per row.
#[derive(Clone, Debug)]
pub struct RotaryAngles {
    table: Arc<Table>,
    /// `[rows][time]`
    positions: Indices,
    rows: usize,
    time: usize,
}

impl RotaryAngles {
    /// Number of rows: 1 for all sequences of a batch, or one per sequence.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Positions per row.
    pub fn time(&self) -> usize {
        self.time
    }

    /// Rotated dimensions of a head.
    pub fn rotated(&self) -> usize {
        2 * self.table.half
    }

    /// Returns `(cos, sin)` of position `time` of `row`, one value of each per rotated pair of
    /// dimensions.
    #[inline]
    pub fn at(&self, row: usize, time: usize) -> (&[f32], &[f32]) {
        let row = if self.rows == 1 { 0 } else { row };
        let half = self.table.half;
        let start = self.positions[row * self.time + time] * half;
        (&self.table.cos[start..start + half], &self.table.sin[start..start + half])
    }

    /// The positions, `[rows][time]`. They are row indices of [`table`](Self::table).
    pub fn positions(&self) -> &Indices {
        &self.positions
    }

    /// Cosines and sines of all positions of the table, `[positions, rotated / 2]` each. They are
    /// copied to a device once for all calls of a model.
    pub fn table(&self, device: &Device) -> [Tensor<2>; 2] {
        let Table { cos, sin, positions, half, tensors } = &*self.table;
        tensors.get_or_make(device, || {
            [cos, sin].map(|values| {
                let values = TensorData::new(values.clone(), [*positions, *half]);
                Tensor::from_data(values, device)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divided_positions_have_the_angles_of_earlier_ones() {
        let plain = RotaryTable::new(8, 1e4).angles(vec![2, 5], 1);
        // a table of its own keeps the divisor, and so does one that has grown
        let divided = RotaryTable::divided(8, 1e4, 4.0).with_positions(4);
        let divided = divided.angles(vec![8, 20], 1);
        for time in [0, 1] {
            assert_eq!(plain.at(0, time), divided.at(0, time));
        }
    }

    #[test]
    fn a_table_that_has_grown_has_the_same_angles() {
        let table = RotaryTable::new(8, 1e4);
        let early = table.angles(vec![3], 1);
        let late = table.angles(vec![3, 1000], 1);
        assert_eq!(early.at(0, 0), late.at(0, 0));
        assert_eq!(table.angles(vec![3], 1).at(0, 0), late.at(0, 0));
    }
}
