//! One step of the block decoder a block, then the token decoder inside it.

use std::ops::ControlFlow;

use burn::tensor::{Bool, Device, Tensor, TensorData};
use zoo::block_transformer::{BlockCache, BlockTransformer};
use zoo_layers::Positions;

use crate::generate::{id_tensor, last_entries, positions};
use crate::rows::Rows;
use crate::{EOS, GenerationError, Options, PAD};

pub(crate) fn decode(
    model: &BlockTransformer,
    block_length: usize,
    prompts: &[Vec<u32>],
    options: &Options,
    device: &Device,
    rows: &mut Rows<'_, impl FnMut(usize, u32) -> ControlFlow<()>>,
) -> Result<(), GenerationError> {
    let prompts = Blocks::new(prompts, block_length);
    let mut lengths = prompts.lengths.clone();
    // the last block that is written is never an input
    let capacity = prompts.most() + options.max_tokens.div_ceil(block_length) - 1;
    let mut cache = model.new_cache(prompts.rows(), capacity, device);
    let mut contexts = prompts.contexts(model, &mut cache, device);
    let decoder = model.token_decoder();
    let mut state = None;
    loop {
        let mut written = vec![EOS; prompts.rows() * block_length];
        let (mut block, mut logits) = decoder.start(contexts, state);
        for place in 0..block_length {
            let ids = rows.choose(logits)?;
            if rows.ended() {
                return Ok(());
            }
            for (row, &id) in written.chunks_mut(block_length).zip(&ids) {
                row[place] = id;
            }
            if place + 1 == block_length {
                break;
            }
            let ids = id_tensor(&ids, 1, device).reshape([prompts.rows()]);
            logits = decoder.next(&mut block, ids);
        }
        state = Some(block);
        let real = vec![true; written.len()];
        let embedded = embed(model, &written, real, prompts.rows(), block_length, device);
        contexts = model.contexts_cached(embedded, &positions(&lengths), &mut cache); // [rows, e, d]
        lengths.iter_mut().for_each(|length| *length += 1);
    }
}

/// Prompts cut into blocks: padded on the left to fill the first block, and on the right with
/// blocks of padding to make a rectangle.
struct Blocks {
    ids: Vec<u32>,
    real: Vec<bool>,
    /// Blocks of each prompt.
    lengths: Vec<usize>,
    block_length: usize,
}

impl Blocks {
    fn new(prompts: &[Vec<u32>], block_length: usize) -> Self {
        let prompt = |ids: &'_ Vec<u32>| if ids.is_empty() { vec![EOS] } else { ids.clone() };
        let prompts: Vec<Vec<u32>> = prompts.iter().map(prompt).collect();
        let lengths: Vec<usize> =
            prompts.iter().map(|prompt| prompt.len().div_ceil(block_length)).collect();
        let width = lengths.iter().copied().max().unwrap_or(0) * block_length;
        let mut ids = vec![PAD; prompts.len() * width];
        let mut real = vec![false; ids.len()];
        for (row, (prompt, blocks)) in prompts.iter().zip(&lengths).enumerate() {
            let end = row * width + blocks * block_length;
            let place = end - prompt.len()..end;
            ids[place.clone()].copy_from_slice(prompt);
            real[place].fill(true);
        }
        Self { ids, real, lengths, block_length }
    }

    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn most(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Runs the block decoder over the prompts into `cache`: the context embeddings `[rows, e, d]`
    /// of each row's last block. Blocks on the right are seen by nobody, and overwritten.
    fn contexts(
        &self,
        model: &BlockTransformer,
        cache: &mut BlockCache,
        device: &Device,
    ) -> Tensor<3> {
        let (rows, n, e) = (self.rows(), self.most(), model.embeddings_per_block());
        let (ids, real) = (&self.ids, self.real.clone());
        let embedded = embed(model, ids, real, rows, self.block_length, device);
        let contexts = model.contexts_cached(embedded, &Positions::Same(0), cache);
        let [_, _, d] = contexts.dims();
        // [rows, n * e, d] -> [rows * n, e * d] -> [rows, e, d]
        let contexts = contexts.reshape([rows * n, e * d]);
        last_entries(contexts, &self.lengths, n).reshape([rows, e, d])
    }
}

/// Block embeddings `[rows, n * e, d]` of `ids`, `n` blocks a row.
fn embed(
    model: &BlockTransformer,
    ids: &[u32],
    real: Vec<bool>,
    rows: usize,
    block_length: usize,
    device: &Device,
) -> Tensor<3> {
    let shape = [rows, ids.len() / rows / block_length, block_length];
    let ids = id_tensor(ids, rows, device).reshape(shape);
    let real = Tensor::<3, Bool>::from_data(TensorData::new(real, shape), device);
    model.embed(ids, real)
}
