//! A batch of requests through a model: the hidden states its continuations are read from.

use block_transformer_zoo::{Family, PaddingMask};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{EOS, PAD, Request};

/// What is run through the model for a request. A vanilla model reads EOS in place of an empty
/// context, and no more than the last `context + 1` tokens; the last one is a target only.
///
/// The same tokens fill at most one block more than a block model's context has, and its last
/// block is a target only.
pub(crate) fn truncated(request: &Request, context: usize) -> (Vec<u32>, &[u32]) {
    let continuation = &request.continuation[..];
    let seen = if request.context.is_empty() { &[EOS][..] } else { &request.context };
    let room = context + 1 - continuation.len();
    (seen[seen.len().saturating_sub(room)..].to_vec(), continuation)
}

/// Tokens, or places for them, that a model reads for a request.
pub(crate) fn width(seen: usize, continuation: usize, block_length: usize) -> usize {
    (seen.div_ceil(block_length) + continuation.div_ceil(block_length) - 1) * block_length
}

/// Hidden states `[continuation tokens of all requests, width]`.
///
/// A context is padded on the left to end at a block boundary, as generation does; its continuation
/// starts a block, and is padded on the right.
pub(crate) fn hidden<M: Family>(
    model: &M,
    block_length: usize,
    requests: &[(Vec<u32>, &[u32])],
    device: &Device,
) -> Tensor<2> {
    let (rows, l) = (requests.len(), block_length);
    let most = requests.iter().map(|(seen, rest)| width(seen.len(), rest.len(), l) / l).max();
    let n = most.unwrap_or(0); // blocks the model reads
    let mut ids = vec![PAD; rows * n * l];
    let mut is_token = vec![false; ids.len()];
    // for every block to be written: the block before it, its tokens, and which are asked for
    let (mut before, mut written, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for (row, (seen, rest)) in requests.iter().enumerate() {
        let blocks = seen.len().div_ceil(l);
        let start = row * n * l + blocks * l - seen.len();
        // the last block is never an input
        let known = rest.len().div_ceil(l) * l - l;
        let known = seen.iter().chain(&rest[..known]);
        for (place, &id) in (start..).zip(known) {
            ids[place] = id;
            is_token[place] = true;
        }
        for (i, tokens) in rest.chunks(l).enumerate() {
            before.push((row * n + blocks + i - 1) as i64);
            read.extend((written.len()..written.len() + tokens.len()).map(|at| at as i64));
            written.extend_from_slice(tokens);
            written.resize(written.len().next_multiple_of(l), PAD);
        }
    }
    let ids = ids_tensor(&ids, [rows, n * l], device).reshape([rows, n, l]);
    let count = before.len();
    let written = ids_tensor(&written, [count, l], device);
    let hidden = model.continuation_hidden(ids, &PaddingMask::new(is_token), before, written);
    let [count, l, h] = hidden.dims();
    let hidden = hidden.reshape([count * l, h]);
    if read.len() == count * l { hidden } else { hidden.select(0, index(read, device)) }
}

fn ids_tensor(ids: &[u32], shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}

fn index(at: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = at.len();
    Tensor::from_data(TensorData::new(at, [count]), device)
}
