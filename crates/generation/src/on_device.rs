//! Blocks whose tokens the device chooses.

use block_transformer_layers::{Draw, Draws, choose};
use block_transformer_text::PAD;
use burn::tensor::{Int, Tensor, TensorData};

use crate::error::GenerationError;
use crate::sampler::Sampler;

/// The tensors that stay on the device between blocks.
#[derive(Default)]
pub(crate) struct OnDevice {
    settings: Option<(Vec<Draw>, Tensor<1>)>,
    /// The last block: the slot of each row, and its tokens `[rows, block_length]`.
    last: Option<(Vec<usize>, Tensor<2, Int>)>,
}

/// The tokens of a block, chosen one place after the other.
pub(crate) struct Choices {
    draws: Draws,
    /// `[rows * length]`
    block: Tensor<1, Int>,
    length: usize,
    place: usize,
}

impl OnDevice {
    /// Starts a block of `length` tokens per row. `logits` `[rows, vocab]` are those of the first token of
    /// each row.
    pub(crate) fn start(
        &mut self,
        logits: &Tensor<2>,
        samplers: &mut [&mut Sampler],
        length: usize,
    ) -> Choices {
        let ([rows, vocab], device) = (logits.dims(), logits.device());
        let settings: Vec<Draw> = samplers.iter().map(|sampler| sampler.on_device(vocab)).collect();
        if self.settings.as_ref().is_none_or(|(known, _)| *known != settings) {
            let tensor = Draws::settings(&settings, &device);
            self.settings = Some((settings, tensor));
        }
        let (_, settings) = self.settings.as_ref().expect("it is set above");
        let shape = [rows * length];
        let noise = if samplers.iter().all(|sampler| sampler.is_greedy() || sampler.needs_host()) {
            Tensor::zeros(shape, &device)
        } else {
            let noise = samplers.iter_mut().flat_map(|sampler| {
                std::iter::repeat_with(|| sampler.noise()).take(length).collect::<Vec<_>>()
            });
            Tensor::from_data(TensorData::new(noise.collect::<Vec<_>>(), shape), &device)
        };
        let draws = Draws::new(settings.clone(), noise);
        Choices { draws, block: Tensor::zeros(shape, &device), length, place: 0 }
    }

    /// Reads the tokens of a finished block: a list per place in the block, with a token per row.
    ///
    /// # Errors
    /// [`GenerationError::Device`] when it cannot be read.
    pub(crate) fn finish(
        &mut self,
        slots: Vec<usize>,
        choices: Choices,
    ) -> Result<Vec<Vec<Option<u32>>>, GenerationError> {
        let Choices { block, length, .. } = choices;
        let tokens = by_place(&block, slots.len(), length)?;
        self.last = Some((slots.clone(), block.reshape([slots.len(), length])));
        Ok(tokens)
    }

    /// The last block `[rows, block_length]`, if its rows are those of `slots`.
    pub(crate) fn block_of(&mut self, slots: &[usize]) -> Option<Tensor<2, Int>> {
        self.last.take().filter(|(of, _)| of == slots).map(|(_, block)| block)
    }
}

impl Choices {
    /// Chooses the next token of each row `[rows]` from its logits `[rows, vocab]`.
    pub(crate) fn choose(&mut self, logits: &Tensor<2>) -> Tensor<1, Int> {
        let ids = choose(logits, &self.draws, &mut self.block, self.place, PAD as usize);
        self.place += 1;
        ids.expect("only a device that chooses tokens gets here")
    }
}

/// Reads the first `rows` rows of `block` `[rows or more * length]`: a list per place in the block, with a
/// token per row. `None` stands for logits that are not finite.
///
/// # Errors
/// [`GenerationError::Device`] when it cannot be read.
pub(crate) fn by_place(
    block: &Tensor<1, Int>,
    rows: usize,
    length: usize,
) -> Result<Vec<Vec<Option<u32>>>, GenerationError> {
    let data = block.clone().try_into_data();
    let data = data.map_err(|error| GenerationError::Device(Box::new(error)))?;
    let ids: Vec<i64> = data.iter::<i64>().take(rows * length).collect();
    let of_place = |place: usize| {
        ids.iter().skip(place).step_by(length).map(|&id| u32::try_from(id).ok()).collect()
    };
    Ok((0..length).map(of_place).collect())
}
