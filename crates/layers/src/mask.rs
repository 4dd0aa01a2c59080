//! Attention masks. `true` means "may not be seen".

use std::cell::OnceCell;
use std::sync::Arc;

use block_transformer_kernels::Order;
use burn::tensor::{Bool, Device, Tensor, TensorData};

use crate::Positions;

/// What a masked score is set to: finite, so that a row with nothing to see stays a number and
/// its (unused) output carries no NaN into the gradients.
pub(crate) const MASKED_SCORE: f32 = -1e30;

/// Which keys each query may see.
#[derive(Clone, Debug)]
pub enum AttentionMask {
    /// Everything sees everything.
    Open,
    /// `[batch or 1, 1, queries or 1, keys]`, `true` = hidden.
    Hidden(Tensor<4, Bool>),
    /// Causal by groups of positions, with padding.
    Causal(Causal),
}

/// A causal order, as a mask only where one is asked for.
#[derive(Clone, Debug)]
pub struct Causal {
    order: Order,
    queries: usize,
    /// Keys from position 0 on.
    keys: usize,
    hidden: OnceCell<Option<Tensor<4, Bool>>>,
}

impl AttentionMask {
    /// The mask as a tensor `[batch or 1, 1, queries or 1, keys]`, `true` = hidden; none if nothing
    /// is.
    pub(crate) fn hidden(&self, device: &Device) -> Option<&Tensor<4, Bool>> {
        match self {
            Self::Open => None,
            Self::Hidden(hidden) => Some(hidden),
            Self::Causal(causal) => {
                causal.hidden.get_or_init(|| causal.make_hidden(device)).as_ref()
            }
        }
    }

    /// The mask of the last `keep` queries.
    pub(crate) fn last(&self, keep: usize) -> Self {
        match self {
            Self::Causal(Causal { order, queries, keys, .. }) if keep < *queries => {
                let order = order.after(queries - keep);
                let (keys, hidden) = (*keys, OnceCell::new());
                Self::Causal(Causal { order, queries: keep, keys, hidden })
            }
            Self::Hidden(hidden) if hidden.dims()[2] > keep => {
                let queries = hidden.dims()[2];
                Self::Hidden(hidden.clone().narrow(2, queries - keep, keep))
            }
            all => all.clone(),
        }
    }

    /// The order, if it is causal.
    pub(crate) fn order(&self) -> Option<&Order> {
        match self {
            Self::Causal(causal) => Some(&causal.order),
            _ => None,
        }
    }
}

impl Causal {
    fn make_hidden(&self, device: &Device) -> Option<Tensor<4, Bool>> {
        let (rows, keys) = (self.order.starts.len(), self.keys);
        let seen = self.order.seen.as_deref();
        let batch = seen.map_or(rows, |seen| rows.max(seen.len() / keys));
        let rows = if seen.is_some() { batch } else { rows };
        let mut hidden = Vec::with_capacity(rows * self.queries * keys);
        for row in 0..rows {
            let seen = seen.map(|seen| &seen[row * keys..][..keys]);
            for i in 0..self.queries {
                let visible = self.order.visible(row, i, keys);
                hidden.extend((0..keys).map(|j| j >= visible || seen.is_some_and(|s| !s[j])));
            }
        }
        hidden.contains(&true).then(|| {
            let shape = [rows, 1, self.queries, keys];
            Tensor::<4, Bool>::from_data(TensorData::new(hidden, shape), device)
        })
    }
}

/// The mask of `queries` positions starting at `at`, over keys from position 0 on: position `i` sees
/// position `j` when `j`'s group of `group` consecutive positions is not after `i`'s. `group` 1 is
/// the plain causal mask. Keys a row has not written yet lie after its queries and stay hidden.
///
/// `seen` (`[batch, keys]`, `true` = real) hides keys that are padding.
pub fn causal_by_block(
    at: &Positions,
    queries: usize,
    group: usize,
    seen: Option<Tensor<2, Bool>>,
) -> AttentionMask {
    let seen = seen.map(|seen| seen.into_data().iter::<bool>().collect::<Vec<bool>>());
    let seen = seen.filter(|seen| seen.contains(&false)).map(Arc::from);
    let order = Order { starts: at.starts(), group, seen };
    let keys = at.furthest() + queries;
    AttentionMask::Causal(Causal { order, queries, keys, hidden: OnceCell::new() })
}
