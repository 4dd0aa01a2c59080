//! One step of the model a token.

use std::ops::ControlFlow;

use burn::tensor::Device;
use zoo::gpt_neox::GptNeoX;
use zoo_layers::Positions;

use crate::generate::{id_tensor, last_entries, positions};
use crate::rows::Rows;
use crate::{EOS, GenerationError, Options, PAD};

pub(crate) fn decode(
    model: &GptNeoX,
    prompts: &[Vec<u32>],
    options: &Options,
    device: &Device,
    rows: &mut Rows<'_, impl FnMut(usize, u32) -> ControlFlow<()>>,
) -> Result<(), GenerationError> {
    let count = prompts.len();
    let mut lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len().max(1)).collect();
    let width = lengths.iter().copied().max().unwrap_or(0);
    let mut ids = vec![PAD; count * width];
    for (row, prompt) in ids.chunks_mut(width).zip(prompts) {
        row[0] = EOS; // all there is of an empty prompt
        row[..prompt.len()].copy_from_slice(prompt);
    }
    // the last token is never an input
    let mut cache = model.new_cache(count, width + options.max_tokens - 1, device);
    let start = Positions::Same(0);
    let hidden = model.hidden(id_tensor(&ids, count, device), &start, Some(&mut cache));
    let [_, _, d] = hidden.dims();
    // padding on the right is seen by nobody, and overwritten: [rows, width, d] -> [rows, d]
    let mut hidden = last_entries(hidden.reshape([count * width, d]), &lengths, width);
    loop {
        let logits = model.logits(hidden.reshape([count, 1, d])); // [rows, 1, v]
        let [_, _, vocab] = logits.dims();
        let ids = rows.choose(logits.reshape([count, vocab]))?;
        if rows.ended() {
            return Ok(());
        }
        let ids = id_tensor(&ids, count, device); // [rows, 1]
        hidden = model.hidden(ids, &positions(&lengths), Some(&mut cache)).reshape([count, d]);
        lengths.iter_mut().for_each(|length| *length += 1);
    }
}
