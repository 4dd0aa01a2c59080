//! Windows on the device.

use block_transformer_datasets::Window;
use block_transformer_zoo::{PaddingMask, TokenBatch};
use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Tensor, TensorData};

/// Uploads windows of one length to `device`, as a batch.
pub fn token_batch(windows: &[Window], block_length: usize, device: &Device) -> TokenBatch {
    let shape = [windows.len(), windows.first().map_or(0, |window| window.ids.len())];
    let ids: Vec<i32> = windows.iter().flat_map(|w| w.ids.iter().map(|&id| id as i32)).collect();
    let is_token = windows.iter().flat_map(|window| window.is_token.iter().copied()).collect();
    TokenBatch {
        ids: Tensor::from_data(TensorData::new(ids, shape), device),
        is_token: PaddingMask::new(is_token),
        block_length,
    }
}

/// Number of tokens in `windows`, padding not counted.
pub(crate) fn num_tokens(windows: &[Window]) -> u64 {
    windows.iter().flat_map(|window| &window.is_token).filter(|&&is_token| is_token).count() as u64
}

/// Number of tokens in `windows` that a model predicts: all but those of the first block.
pub(crate) fn num_predicted(windows: &[Window], block_length: usize) -> u64 {
    let predicted = windows.iter().flat_map(|window| &window.is_token[block_length..]);
    predicted.filter(|&&is_token| is_token).count() as u64
}

/// [`token_batch`] for burn's data loader.
#[derive(Clone, Copy, Debug)]
pub struct WindowBatcher {
    /// Tokens per block of the model (`ModelConfig::block_length`).
    pub block_length: usize,
}

impl Batcher<Window, TokenBatch> for WindowBatcher {
    fn batch(&self, windows: Vec<Window>, device: &Device) -> TokenBatch {
        token_batch(&windows, self.block_length, device)
    }
}
