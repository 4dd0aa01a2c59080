//! Who sees whom.

use std::sync::Arc;

/// Attention that is causal by groups of positions, with padding.
///
/// Query `i` of row `b` stands at position `p = starts[b] + i` and sees keys `0..=last` of its row,
/// `last` being the last position of `p`'s group of `group` consecutive positions.
#[derive(Clone, Debug)]
pub struct Order {
    /// Position of the first query: one for all rows, or one a row.
    pub starts: Vec<usize>,
    /// Positions a group; 1 is the plain causal order.
    pub group: usize,
    /// `[batch][keys]`, false at keys that nobody sees.
    pub seen: Option<Arc<[bool]>>,
}

impl Order {
    /// Plain causal order of sequences from their first position on.
    pub fn causal() -> Self {
        Self { starts: vec![0], group: 1, seen: None }
    }

    /// The order of the queries after the first `count` of each row.
    pub fn after(&self, count: usize) -> Self {
        Self { starts: self.starts.iter().map(|start| start + count).collect(), ..self.clone() }
    }

    /// Position of the first query of `row`.
    pub fn start(&self, row: usize) -> usize {
        self.starts[if self.starts.len() == 1 { 0 } else { row }]
    }

    /// How many keys query `i` of `row` sees at most, of `keys`.
    pub fn visible(&self, row: usize, i: usize, keys: usize) -> usize {
        keys.min(((self.start(row) + i) / self.group + 1) * self.group)
    }
}
