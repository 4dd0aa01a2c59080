//! The hidden states from which a batch of continuations is predicted.

use block_transformer_family::{Continuations, Family, PaddingMask};
use block_transformer_layers::int_tensor;
use block_transformer_text::{EOS, PAD};
use burn::tensor::{Device, Int, Tensor};

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

    /// Number of positions that a model reads, including the padding to whole blocks. The last
    /// block is a target only.
    pub(super) fn width(&self, block_length: usize) -> usize {
        let blocks = |tokens: usize| tokens.div_ceil(block_length);
        (blocks(self.context.len()) + blocks(self.continuation.len()) - 1) * block_length
    }
}

/// Blocks of several inputs.
///
/// A context is padded on the left to end at a block boundary, as in generation. Its continuation
/// starts a block and is padded on the right.
pub(super) struct Rows {
    /// Contexts and the blocks of continuations that are read, `[rows, n, block_length]`.
    pub ids: Vec<u32>,
    /// The positions of `ids` that hold tokens.
    pub is_token: Vec<bool>,
    pub rows: usize,
    /// Blocks per row.
    pub n: usize,
    /// For each block of a continuation, the block of `ids` before it.
    pub before: Vec<i64>,
    /// The blocks of continuations, `[count, block_length]`.
    pub written: Vec<u32>,
    /// The positions of `written` that are not padding.
    pub scored: Vec<i64>,
}

impl Rows {
    /// The blocks of `inputs`, of `l` tokens each.
    pub(super) fn new(inputs: &[&Input<'_>], l: usize) -> Self {
        let rows = inputs.len();
        let n = inputs.iter().map(|input| input.width(l) / l).max().unwrap_or(0);
        let mut ids = vec![PAD; rows * n * l];
        let mut is_token = vec![false; ids.len()];
        let (mut before, mut written, mut scored) = (Vec::new(), Vec::new(), Vec::new());
        for (row, Input { context, continuation }) in inputs.iter().enumerate() {
            let blocks = context.len().div_ceil(l);
            let start = row * n * l + blocks * l - context.len();
            // the last block is a target only
            let read = continuation.len().div_ceil(l) * l - l;
            for (position, &id) in (start..).zip(context.iter().chain(&continuation[..read])) {
                ids[position] = id;
                is_token[position] = true;
            }
            for (i, tokens) in continuation.chunks(l).enumerate() {
                before.push((row * n + blocks + i - 1) as i64);
                scored.extend((written.len()..written.len() + tokens.len()).map(|at| at as i64));
                written.extend_from_slice(tokens);
                written.resize(written.len().next_multiple_of(l), PAD);
            }
        }
        Self { ids, is_token, rows, n, before, written, scored }
    }
}

/// Hidden states `[continuation tokens of all inputs, width]`.
pub(super) fn hidden<M: Family>(
    model: &M,
    l: usize, // block length
    inputs: &[&Input<'_>],
    device: &Device,
) -> Tensor<2> {
    let Rows { ids, is_token, rows, n, before, written, scored } = Rows::new(inputs, l);
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
