//! The rows of a batch while they are being written.

use std::ops::ControlFlow;

use burn::tensor::Tensor;

use crate::{EOS, GenerationError, Options, Sampler};

/// What has been written for each prompt, and who may still write.
pub(crate) struct Rows<'a, F> {
    samplers: Vec<Sampler>,
    written: Vec<Vec<u32>>,
    ended: Vec<bool>,
    options: &'a Options,
    on_token: F,
}

impl<'a, F: FnMut(usize, u32) -> ControlFlow<()>> Rows<'a, F> {
    pub(crate) fn new(prompts: usize, options: &'a Options, on_token: F) -> Self {
        let first = options.first_prompt;
        let sampler = |row| Sampler::new(options.sampling, options.allowed_vocab, first + row);
        Self {
            samplers: (0..prompts).map(sampler).collect(),
            written: vec![Vec::new(); prompts],
            ended: vec![options.max_tokens == 0; prompts],
            options,
            on_token,
        }
    }

    /// Whether no row writes any more.
    pub(crate) fn ended(&self) -> bool {
        self.ended.iter().all(|&ended| ended)
    }

    /// Chooses a token for every row that writes; the others get a filler nobody reads.
    ///
    /// # Shapes
    /// - `logits`: `[rows, v]`
    pub(crate) fn choose(&mut self, logits: Tensor<2>) -> Result<Vec<u32>, GenerationError> {
        let [_, vocab] = logits.dims();
        let data = logits.try_into_data().map_err(|e| GenerationError::Device(e.to_string()))?;
        let logits: Vec<f32> = data.iter::<f32>().collect();
        let mut ids = vec![EOS; self.samplers.len()];
        for (row, logits) in logits.chunks(vocab).enumerate() {
            if !self.ended[row] {
                let id = self.samplers[row].choose(logits);
                let prompt = self.options.first_prompt + row;
                ids[row] = id.ok_or(GenerationError::NotFinite { prompt })?;
                self.write(row, ids[row]);
            }
        }
        Ok(ids)
    }

    fn write(&mut self, row: usize, id: u32) {
        if self.options.eos == Some(id) {
            self.ended[row] = true;
            return;
        }
        self.written[row].push(id);
        let broken = (self.on_token)(row, id).is_break();
        self.ended[row] = broken || self.written[row].len() >= self.options.max_tokens;
    }

    pub(crate) fn into_written(self) -> Vec<Vec<u32>> {
        self.written
    }
}
