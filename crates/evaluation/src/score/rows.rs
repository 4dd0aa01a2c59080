//! The hidden states from which a batch of continuations is predicted.

use block_transformer_family::{Continuations, Family, PaddingMask};
use block_transformer_layers::int_tensor;
use block_transformer_text::{EOS, PAD};
use burn::tensor::{Device, Int, Tensor};

use crate::score::alignment::Alignment;
use crate::score::request::Request;

/// The tokens of a request that fit the context.
pub(super) struct Input<'a> {
    /// The last tokens of the request's context, at least one.
    pub context: Vec<u32>,
    /// All tokens of the continuation, at least one.
    pub continuation: &'a [u32],
}

impl<'a> Input<'a> {
    /// Cuts the context of a request from the left, so that context and continuation together have
    /// at most `context + 1` tokens. The last token is a target only. EOS stands for an empty
    /// context.
    pub(super) fn new(request: &'a Request, context: usize) -> Self {
        let continuation = &request.continuation[..];
        let all = if request.context.is_empty() { &[EOS][..] } else { &request.context };
        let room = context + 1 - continuation.len();
        Self { context: all[all.len().saturating_sub(room)..].to_vec(), continuation }
    }

    /// The place of the input in blocks of `l` tokens.
    pub(super) fn place(&self, l: usize, alignment: Alignment) -> Place {
        let padding = alignment.padding(self.context.len(), l);
        let target = padding + self.context.len();
        let end = target + self.continuation.len();
        Place { padding, target, end, first: target / l, last: (end - 1) / l }
    }
}

/// The place of an input in blocks, counted in positions and blocks from the start of its row.
pub(super) struct Place {
    /// Positions of padding before the context.
    padding: usize,
    /// Position of the first token of the continuation.
    target: usize,
    /// Position after the last token of the continuation.
    end: usize,
    /// The block of the first token of the continuation, at least 1.
    first: usize,
    /// The block of the last token of the continuation. It is a target only, so it is also the number of
    /// blocks that a model reads.
    pub last: usize,
}

/// Blocks of several inputs, which are padded on the left by the [`Alignment`] and on the right to whole
/// blocks.
pub(super) struct Rows {
    /// The blocks that are read, `[rows, n, block_length]`.
    pub ids: Vec<u32>,
    /// The positions of `ids` that hold tokens.
    pub is_token: Vec<bool>,
    pub rows: usize,
    /// Blocks per row.
    pub n: usize,
    /// For each block with a token of a continuation, the block of `ids` before it.
    pub before: Vec<i64>,
    /// The blocks with tokens of continuations, `[count, block_length]`.
    pub written: Vec<u32>,
    /// The positions of `written` that hold tokens of continuations.
    pub scored: Vec<i64>,
}

impl Rows {
    /// The blocks of `inputs`, of `l` tokens each.
    pub(super) fn new(inputs: &[&Input<'_>], l: usize, alignment: Alignment) -> Self {
        let rows = inputs.len();
        let places: Vec<Place> = inputs.iter().map(|input| input.place(l, alignment)).collect();
        let n = places.iter().map(|place| place.last).max().unwrap_or(0);
        let mut ids = vec![PAD; rows * n * l];
        let mut is_token = vec![false; ids.len()];
        let (mut before, mut written, mut scored) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (Input { context, continuation }, place)) in
            inputs.iter().zip(&places).enumerate()
        {
            let &Place { padding, target, end, first, last } = place;
            let tokens = || (padding..).zip(context.iter().chain(*continuation));
            // the last block is a target only
            for (position, &id) in tokens().take_while(|&(position, _)| position < last * l) {
                ids[row * n * l + position] = id;
                is_token[row * n * l + position] = true;
            }
            before.extend((first..=last).map(|block| (row * n + block - 1) as i64));
            let (start, offset) = (first * l, written.len());
            written.resize(offset + (last + 1) * l - start, PAD);
            for (position, &id) in tokens().filter(|&(position, _)| position >= start) {
                written[offset + position - start] = id;
            }
            scored.extend((target..end).map(|position| (offset + position - start) as i64));
        }
        Self { ids, is_token, rows, n, before, written, scored }
    }
}

/// Hidden states `[continuation tokens of all inputs, width]`.
pub(super) fn hidden<M: Family>(
    model: &M,
    l: usize, // block length
    alignment: Alignment,
    inputs: &[&Input<'_>],
    device: &Device,
) -> Tensor<2> {
    let Rows { ids, is_token, rows, n, before, written, scored } = Rows::new(inputs, l, alignment);
    let count = before.len();
    let ids = ids_tensor(&ids, [rows, n, l], device);
    let written = ids_tensor(&written, [count, l], device);
    let is_token = PaddingMask::new(is_token);
    let hidden = model.continuation_hidden(Continuations { ids, is_token, before, written });
    let [count, l, width] = hidden.dims();
    let hidden = hidden.reshape([count * l, width]);
    match scored.len() == count * l {
        true => hidden,
        false => hidden.select(0, int_tensor(scored, device)),
    }
}

pub(super) fn ids_tensor<const D: usize>(
    ids: &[u32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    int_tensor(ids.iter().copied(), device).reshape(shape)
}
