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
    /// Like [`Slots`](Self::Slots), with a number of new positions for each row. Tensors have the positions of
    /// row after row: `[1, all positions, ...]`.
    Ragged {
        /// The slot of each row; no two rows share one.
        slots: Indices,
        /// The first new position of each row.
        starts: Indices,
        /// The number of new positions of each row, at least one.
        lengths: Indices,
    },
}

impl Positions {
    /// The first new positions: one for all rows, or one per row.
    pub fn starts(&self) -> Indices {
        match self {
            Self::Same(start) => vec![*start].into(),
            Self::Slots { starts, .. } | Self::Ragged { starts, .. } => starts.clone(),
        }
    }

    /// The number of rows of a tensor `[rows, ...]` with these positions.
    pub fn rows(&self, rows: usize) -> usize {
        match self {
            Self::Ragged { slots, .. } => slots.len(),
            Self::Same(_) | Self::Slots { .. } => rows,
        }
    }

    /// The first position after all new positions, if rows without a length of their own have `time`.
    pub fn end(&self, time: usize) -> usize {
        match self {
            Self::Same(start) => start + time,
            Self::Slots { starts, .. } => starts.iter().copied().max().unwrap_or(0) + time,
            Self::Ragged { starts, lengths, .. } => {
                let ends = starts.iter().zip(lengths.iter()).map(|(start, length)| start + length);
                ends.max().unwrap_or(0)
            }
        }
    }

    /// The new positions of all rows, `[rows, time]`, or in one row if rows have lengths of their own.
    pub(crate) fn all(&self, time: usize) -> Indices {
        match self {
            Self::Same(_) | Self::Slots { .. } => self.starts().runs(time),
            Self::Ragged { starts, lengths, .. } => {
                let rows = starts.iter().zip(lengths.iter());
                rows.flat_map(|(&start, &length)| start..start + length).collect()
            }
        }
    }

    /// The place of the last new position of each row among all new positions, which are `[rows, time]`.
    pub fn last(&self, [rows, time]: [usize; 2]) -> Vec<usize> {
        let lengths = match self {
            Self::Ragged { lengths, .. } => lengths.to_vec(),
            Self::Same(_) | Self::Slots { .. } => vec![time; rows],
        };
        let mut end = 0;
        let last = |length: usize| {
            end += length;
            end - 1
        };
        lengths.into_iter().map(last).collect()
    }

    /// The number of new positions of each row, if rows have lengths of their own.
    pub(crate) fn lengths(&self) -> Option<&Indices> {
        match self {
            Self::Ragged { lengths, .. } => Some(lengths),
            Self::Same(_) | Self::Slots { .. } => None,
        }
    }

    /// Neighbouring rows of equal length, and this length.
    pub(crate) fn equal_rows(&self) -> Vec<(Self, usize)> {
        let Self::Ragged { slots, starts, lengths } = self else { return Vec::new() };
        let mut row = 0;
        lengths
            .chunk_by(|a, b| a == b)
            .map(|equal| {
                let rows = row..row + equal.len();
                row = rows.end;
                let part = |all: &Indices| all[rows.clone()].to_vec().into();
                (Self::Slots { slots: part(slots), starts: part(starts) }, equal[0])
            })
            .collect()
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
            Self::Ragged { slots, starts, lengths } => Self::Ragged {
                slots: slots.clone(),
                starts: starts.times(factor),
                lengths: lengths.times(factor),
            },
        }
    }

    /// The slot of each of `rows` rows.
    pub(crate) fn slots(&self, rows: usize) -> Indices {
        match self {
            Self::Same(_) => (0..rows).collect(),
            Self::Slots { slots, .. } | Self::Ragged { slots, .. } => slots.clone(),
        }
    }
}
