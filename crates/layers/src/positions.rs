//! The places of new positions in a KV cache.

use block_transformer_kernels::Indices;

/// The places in a cache to which the new positions of a batch are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Row `i` occupies slot `i`, and every row starts at the same position.
    Same(usize),
    /// Row `i` occupies slot `slots[i]` and starts at position `starts[i]` there.
    Slots {
        /// The slot of each row; no two rows share one.
        slots: Indices,
        /// The first new position of each row.
        starts: Indices,
    },
}

impl Positions {
    /// The first new positions: one for all rows, or one per row.
    pub fn starts(&self) -> Indices {
        match self {
            Self::Same(start) => vec![*start].into(),
            Self::Slots { starts, .. } => starts.clone(),
        }
    }

    /// The largest start.
    pub fn furthest(&self) -> usize {
        match self {
            Self::Same(start) => *start,
            Self::Slots { starts, .. } => starts.iter().copied().max().unwrap_or(0),
        }
    }

    /// The same slots, with the starts in smaller units: one position becomes `factor` positions
    /// (a block becomes its embeddings).
    pub fn scaled(&self, factor: usize) -> Self {
        match self {
            _ if factor == 1 => self.clone(),
            Self::Same(start) => Self::Same(start * factor),
            Self::Slots { slots, starts } => {
                Self::Slots { slots: slots.clone(), starts: starts.times(factor) }
            }
        }
    }

    /// The slot of each of `rows` rows.
    pub(crate) fn slots(&self, rows: usize) -> Indices {
        match self {
            Self::Same(_) => (0..rows).collect(),
            Self::Slots { slots, .. } => slots.clone(),
        }
    }
}
