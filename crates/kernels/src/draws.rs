//! How the next tokens of several rows are drawn on a device.

use burn::tensor::{Device, Tensor, TensorData};

/// How the next token of a row is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Divides the logits. With 0, the most likely token is chosen; of several equally likely tokens,
    /// the one with the lowest id.
    pub temperature: f32,
    /// Draws from this many of the most likely tokens.
    pub top_k: Option<usize>,
    /// After `top_k`, draws from the smallest set of most likely tokens whose probabilities sum to at
    /// least this value.
    pub top_p: Option<f32>,
    /// Only ids below this value are chosen.
    pub vocab: usize,
    /// Whether the padding id is never chosen.
    pub without_pad: bool,
}

/// How the next tokens of rows are drawn, and the random numbers for several places.
///
/// The tensors have one dimension, because CUDA pads the rows of others, and a [refresh](crate::refresh) writes no
/// padding.
#[derive(Clone, Debug)]
pub struct Draws {
    /// `[rows * SETTINGS]`: temperature, `top_k` or 0, `top_p` or 1, end of the vocabulary, and 1
    /// without the padding id
    pub(crate) settings: Tensor<1>,
    /// `[rows * places]`, from 0 to below 1
    pub(crate) noise: Tensor<1>,
}

impl Draw {
    /// Chooses the most likely of the first `vocab` ids.
    pub fn greedy(vocab: usize) -> Self {
        Self { temperature: 0.0, top_k: None, top_p: None, vocab, without_pad: false }
    }
}

impl Draws {
    /// Values per row.
    pub(crate) const SETTINGS: usize = 5;

    /// The settings of rows, `[rows * SETTINGS]`, for [`Draws::new`].
    pub fn settings(rows: &[Draw], device: &Device) -> Tensor<1> {
        Tensor::from_data(Self::values(rows), device)
    }

    /// The settings of rows, `[rows * SETTINGS]`.
    pub(crate) fn values(rows: &[Draw]) -> TensorData {
        let values: Vec<f32> = rows
            .iter()
            .flat_map(|draw| {
                [
                    draw.temperature,
                    draw.top_k.map_or(0.0, |k| k as f32),
                    draw.top_p.unwrap_or(1.0),
                    draw.vocab as f32,
                    f32::from(u8::from(draw.without_pad)),
                ]
            })
            .collect();
        TensorData::new(values, [rows.len() * Self::SETTINGS])
    }

    /// Draws with `settings` and random numbers `[rows * places]` from 0 to below 1.
    pub fn new(settings: Tensor<1>, noise: Tensor<1>) -> Self {
        Self { settings, noise }
    }

    /// Settings and random numbers of zeros for `places` of each of `rows`, to be refreshed.
    pub fn zeros([rows, places]: [usize; 2], device: &Device) -> Self {
        let zeros = |width: usize| Tensor::zeros([rows * width], device);
        Self { settings: zeros(Self::SETTINGS), noise: zeros(places) }
    }
}
