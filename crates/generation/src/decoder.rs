//! What the scheduler asks of a model.

use burn::tensor::Tensor;

use crate::Work;

/// A prompt on its way into a slot.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub slot: usize,
    /// Not empty.
    pub prompt: Vec<u32>,
    /// Blocks of the slot that it comes after.
    pub after: usize,
}

/// A block that a sequence has written and goes on from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    pub slot: usize,
    /// Blocks of the slot before it.
    pub after: usize,
    pub ids: &'a [u32],
}

/// A model that writes blocks of tokens of several sequences in lockstep. The sequences live in
/// slots, where the model keeps what it needs to know of them.
pub(crate) trait Decoder {
    /// Tokens a block; 1 for models without blocks.
    fn block_length(&self) -> usize;

    /// Takes in what was written and what arrives, and starts the next block of all of these: the
    /// logits `[rows, v]` of its first token, in the order of the slots.
    fn start(&mut self, written: &[Written<'_>], arriving: &[Arrival]) -> Tensor<2>;

    /// Goes on with the rows `kept` of the last call, which chose the tokens `ids`: the logits
    /// `[kept, v]` of their next token.
    fn next(&mut self, kept: &[usize], ids: &[u32]) -> Tensor<2>;

    /// Gives every slot the same random keys and values.
    fn fill(&mut self);

    /// What has been computed so far.
    fn work(&self) -> Work;
}

#[cfg(test)]
mod tests;
