//! Batches of tokens, their padding, and their losses.

use std::sync::Arc;

use block_transformer_layers::total;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// The positions of a batch `[batch, time]` that hold tokens; the others hold padding.
///
/// The mask stays on the host. A model copies it to the device only where a tensor needs it, and
/// never reads it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaddingMask {
    /// `[batch, time]`, row-major; `None` when every position holds a token.
    is_token: Option<Arc<[bool]>>,
}

impl PaddingMask {
    /// A mask from row-major values `[batch, time]`, true where a token is.
    pub fn new(is_token: Vec<bool>) -> Self {
        Self { is_token: is_token.contains(&false).then(|| is_token.into()) }
    }

    /// The mask of a batch without padding, of any shape.
    pub fn full() -> Self {
        Self::default()
    }

    /// Row-major values `[batch, time]`, true where a token is; `None` when the mask is full.
    pub fn as_slice(&self) -> Option<&[bool]> {
        self.is_token.as_deref()
    }

    /// The mask as a tensor of `shape`, true where a token is.
    ///
    /// # Panics
    /// When `shape` has another number of elements.
    pub fn to_tensor<const D: usize>(&self, shape: [usize; D], device: &Device) -> Tensor<D, Bool> {
        let values = match self.as_slice() {
            Some(values) => values.to_vec(),
            None => vec![true; shape.iter().product()],
        };
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// The mask of keys `[batch, n * keys]` for blocks of `block_length` positions with `keys` keys
    /// each: false for the keys of a block that holds padding only. `None` when every block holds a
    /// token.
    pub fn block_keys(&self, block_length: usize, keys: usize) -> Option<Arc<[bool]>> {
        let blocks = self.as_slice()?.chunks(block_length).map(|block| block.contains(&true));
        let mask: Vec<bool> = blocks.flat_map(|seen| std::iter::repeat_n(seen, keys)).collect();
        mask.contains(&false).then(|| mask.into())
    }

    /// 1 for each token and 0 for each padding position after the first `first` positions of every
    /// row, `[batch, time - first]`.
    pub fn weights(&self, [batch, time]: [usize; 2], first: usize, device: &Device) -> Tensor<2> {
        let count = batch * (time - first);
        let values: Vec<f32> = match self.as_slice() {
            Some(values) => values
                .chunks(time)
                .flat_map(|row| &row[first..])
                .map(|&is_token| f32::from(u8::from(is_token)))
                .collect(),
            None => vec![1.0; count],
        };
        Tensor::from_data(TensorData::new(values, [batch, time - first]), device)
    }
}

/// Windows of tokens.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// `[batch, time]`; `time` is a multiple of `block_length`.
    pub ids: Tensor<2, Int>,
    /// The positions of `ids` that hold tokens.
    pub is_token: PaddingMask,
    /// Tokens per block; 1 for models without blocks.
    pub block_length: usize,
}

impl TokenBatch {
    /// The ids of all tokens that are predicted, `[batch, time - block_length]`: all except those
    /// of the first block.
    pub fn targets(&self) -> Tensor<2, Int> {
        let [_, time] = self.ids.dims();
        self.ids.clone().narrow(1, self.block_length, time - self.block_length)
    }

    /// The weights of the [targets](Self::targets), `[batch, time - block_length]`: 0 at padding,
    /// 1 elsewhere.
    pub fn weights(&self, device: &Device) -> Tensor<2> {
        self.is_token.weights(self.ids.dims(), self.block_length, device)
    }
}

/// Blocks, and contexts that they continue.
#[derive(Clone, Debug)]
pub struct Continuations {
    /// The contexts, `[rows, n, block_length]`.
    pub ids: Tensor<3, Int>,
    /// The positions of `ids` that hold tokens, `[rows, n * block_length]`. Padding is allowed at the
    /// start of a row's first block, and after the last block that `before` names, because no result
    /// depends on it there.
    pub is_token: PaddingMask,
    /// The block of `ids` that each continuation follows, `[count]`: `row * n + block`.
    pub before: Vec<i64>,
    /// The continuations, `[count, block_length]`.
    pub written: Tensor<2, Int>,
}

/// Losses of the tokens that a model predicts.
#[derive(Clone, Debug)]
pub struct TokenLosses {
    /// Negative log-likelihood in nats, `[batch, predicted]`; 0 at padding.
    pub losses: Tensor<2>,
    /// 1 where a token is predicted and 0 at padding, `[batch, predicted]`.
    pub weights: Tensor<2>,
}

impl TokenLosses {
    /// Mean over the predicted tokens without padding, `[1]`, in nats per token.
    pub fn mean(&self) -> Tensor<1> {
        total(self.losses.clone()) / total(self.weights.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_without_padding_are_full() {
        assert_eq!(PaddingMask::new(vec![true; 8]), PaddingMask::full());
        assert_ne!(PaddingMask::new(vec![false, true]), PaddingMask::full());
    }

    #[test]
    fn a_block_is_hidden_when_it_holds_padding_only() {
        let mask = PaddingMask::new(vec![false, false, false, true, true, true]);
        let keys = mask.block_keys(2, 2).unwrap();
        assert_eq!(*keys, [false, false, true, true, true, true]);
        assert_eq!(mask.block_keys(3, 1).as_deref(), Some(&[false, true][..]));
        assert_eq!(PaddingMask::new(vec![false, true, true, true]).block_keys(2, 1), None);
        assert_eq!(PaddingMask::full().block_keys(2, 1), None);
    }

    #[test]
    fn weights_leave_out_the_first_positions_of_every_row() {
        let device = Device::flex();
        let mask = PaddingMask::new(vec![true, false, true, true, true, false]);
        let weights = mask.weights([2, 3], 1, &device).into_data();
        assert_eq!(weights.iter::<f32>().collect::<Vec<_>>(), [0.0, 1.0, 1.0, 0.0]);
        let weights = PaddingMask::full().weights([2, 3], 1, &device).into_data();
        assert_eq!(weights.iter::<f32>().collect::<Vec<_>>(), [1.0; 4]);
    }
}
