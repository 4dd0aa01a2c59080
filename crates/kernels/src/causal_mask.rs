//! The causal mask of the attention kernels.

use std::sync::Arc;

use burn::tensor::{Bool, Device, Tensor, TensorData};

use crate::indices::Indices;
use crate::per_device::PerDevice;

/// A causal mask by groups of positions, which can also hide padding keys.
///
/// Query `i` of row `b` has position `p = starts[b] + i`. Positions form groups of `group`. The
/// query sees the keys of its row from position 0 to the end of the group that contains `p`.
#[derive(Clone, Debug)]
pub struct CausalMask {
    starts: Indices,
    group: usize,
    key_mask: Option<Arc<[bool]>>,
    key_mask_tensors: PerDevice<Tensor<1, Bool>>,
}

impl CausalMask {
    /// The mask of queries that start at the positions `starts`: one position for all rows, or one
    /// per row. `group` 1 is the plain causal mask. `key_mask` is `[batch][keys]`, and false at
    /// keys that no query sees.
    pub fn new(starts: impl Into<Indices>, group: usize, key_mask: Option<Arc<[bool]>>) -> Self {
        Self { starts: starts.into(), group, key_mask, key_mask_tensors: PerDevice::default() }
    }

    /// The mask of the queries that follow the first `count` of each row.
    pub fn after(&self, count: usize) -> Self {
        let starts = self.starts.iter().map(|start| start + count).collect();
        Self { starts, ..self.clone() }
    }

    /// Positions of the first queries: one for all rows, or one per row.
    pub fn starts(&self) -> &Indices {
        &self.starts
    }

    /// Position of the first query of `row`.
    pub fn start(&self, row: usize) -> usize {
        self.starts[if self.starts.len() == 1 { 0 } else { row }]
    }

    /// Positions per group.
    pub fn group(&self) -> usize {
        self.group
    }

    /// The key mask `[batch][keys]`, false at keys that no query sees.
    pub fn key_mask(&self) -> Option<&[bool]> {
        self.key_mask.as_deref()
    }

    /// The key mask `[batch * keys]` on `device`.
    pub fn key_mask_tensor(&self, device: &Device) -> Option<Tensor<1, Bool>> {
        let key_mask = self.key_mask.as_deref()?;
        Some(self.key_mask_tensors.get_or_make(device, || {
            Tensor::from_data(TensorData::new(key_mask.to_vec(), [key_mask.len()]), device)
        }))
    }

    /// Returns how many of `keys` keys query `i` of `row` sees, without regard to the key mask.
    pub fn visible_keys(&self, row: usize, i: usize, keys: usize) -> usize {
        keys.min(((self.start(row) + i) / self.group + 1) * self.group)
    }
}
