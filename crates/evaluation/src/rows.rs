//! A batch of requests through a model: the hidden states its continuations are read from.

use block_transformer_zoo::block::BlockTransformer;
use block_transformer_zoo::vanilla::GptNeoX;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

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
    match block_length {
        1 => seen + continuation - 1,
        l => (seen.div_ceil(l) + continuation.div_ceil(l) - 1) * l,
    }
}

/// Hidden states `[continuation tokens of all requests, width]` of a vanilla model, padded on the
/// right, where nothing that is real looks.
pub(crate) fn vanilla(
    model: &GptNeoX,
    requests: &[(Vec<u32>, &[u32])],
    device: &Device,
) -> Tensor<2> {
    let time = requests.iter().map(|(seen, rest)| width(seen.len(), rest.len(), 1)).max();
    let time = time.unwrap_or(0);
    let mut ids = vec![PAD; requests.len() * time];
    let mut read = Vec::new();
    for (row, (seen, rest)) in requests.iter().enumerate() {
        let start = row * time;
        let known = seen.iter().chain(&rest[..rest.len() - 1]);
        ids[start..].iter_mut().zip(known).for_each(|(place, &id)| *place = id);
        // a token is read where the one before it stands
        let first = start + seen.len() - 1;
        read.extend(first as i64..(first + rest.len()) as i64);
    }
    let ids = ids_tensor(&ids, [requests.len(), time], device);
    let hidden = model.hidden(ids); // [rows, time, h]
    let [rows, time, h] = hidden.dims();
    hidden.reshape([rows * time, h]).select(0, index(read, device))
}

/// The same of a block model. A context is padded on the left to end at a block boundary, as
/// generation does; its continuation starts a block, and is padded on the right.
pub(crate) fn block(
    model: &BlockTransformer,
    block_length: usize,
    requests: &[(Vec<u32>, &[u32])],
    device: &Device,
) -> Tensor<2> {
    let (rows, l) = (requests.len(), block_length);
    let most = requests.iter().map(|(seen, rest)| width(seen.len(), rest.len(), l) / l).max();
    let n = most.unwrap_or(0); // blocks the block decoder reads
    let mut ids = vec![PAD; rows * n * l];
    let mut real = vec![false; ids.len()];
    // for every block to be written: the block before it, its tokens, and which are asked for
    let (mut before, mut written, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for (row, (seen, rest)) in requests.iter().enumerate() {
        let blocks = seen.len().div_ceil(l);
        let start = row * n * l + blocks * l - seen.len();
        // the last block is an input to nothing
        let known = rest.len().div_ceil(l) * l - l;
        let known = seen.iter().chain(&rest[..known]);
        for (place, &id) in (start..).zip(known) {
            ids[place] = id;
            real[place] = true;
        }
        for (i, tokens) in rest.chunks(l).enumerate() {
            before.push((row * n + blocks + i - 1) as i64);
            read.extend((written.len()..written.len() + tokens.len()).map(|at| at as i64));
            written.extend_from_slice(tokens);
            written.resize(written.len().next_multiple_of(l), PAD);
        }
    }
    let shape = [rows, n, l];
    let ids = ids_tensor(&ids, [rows, n * l], device).reshape(shape);
    let real = Tensor::<3, Bool>::from_data(TensorData::new(real, shape), device);
    // padding on the right is seen by nobody, and there is always something real in a first block
    let contexts = model.contexts(model.embed(ids, real), None); // [rows, n * e, d]
    let ([_, _, d], e) = (contexts.dims(), model.embeddings_per_block());
    let count = before.len();
    let contexts = contexts.reshape([rows * n, e * d]).select(0, index(before, device));
    let written = ids_tensor(&written, [count, l], device);
    let hidden = model.token_decoder().hidden(contexts.reshape([count, e, d]), written);
    let [count, l, h] = hidden.dims();
    hidden.reshape([count * l, h]).select(0, index(read, device))
}

fn ids_tensor(ids: &[u32], shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}

fn index(at: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = at.len();
    Tensor::from_data(TensorData::new(at, [count]), device)
}
