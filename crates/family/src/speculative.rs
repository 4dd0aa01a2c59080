//! Decoding with guessed tokens, which one pass of the model verifies.

use block_transformer_layers::Positions;
use burn::tensor::{Int, Tensor};

use crate::batch::PaddingMask;

/// A block in progress that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRow {
    /// Its row in the previous call.
    pub row: usize,
    /// The place in the block of its next input.
    pub place: usize,
}

/// Decoding of several tokens of a block, or of several blocks, in one pass.
///
/// The inputs that follow the tokens known so far are guesses. A caller compares the token that it
/// chooses from the logits of each place with the guess for that place, and uses the logits up to the
/// first wrong guess. What a wrong guess wrote to a cache is overwritten later, because a caller appends
/// and continues at the places of the tokens that it has chosen.
pub trait SpeculativeDecoding {
    /// Runs blocks like [`append`](crate::BlockDecoding::append), and returns the states after each of them.
    ///
    /// # Shapes
    /// - `ids`: `[rows, n, block_length]`
    /// - `is_token`: `[rows, n * block_length]`
    /// - output: `[rows, n * k, width]`
    fn append_all(
        &mut self,
        ids: Tensor<3, Int>,
        is_token: &PaddingMask,
        at: &Positions,
    ) -> Tensor<3>;

    /// Starts a block for each row of `states` like [`start`](crate::BlockDecoding::start), and runs
    /// its first tokens, which are guessed. There may be more rows than slots.
    ///
    /// # Shapes
    /// - `states`: `[rows, k, width]`
    /// - `guessed`: `[rows, g]`, with `g` less than the block length
    /// - output: logits `[rows, 1 + g, vocab]` of the tokens of the places 0 to `g`
    fn start_guessed(&mut self, states: Tensor<3>, guessed: Option<Tensor<2, Int>>) -> Tensor<3>;

    /// Continues `rows` of the last call with the tokens `ids`; of each row, the first is known and the
    /// others are guessed.
    ///
    /// # Shapes
    /// - `ids`: `[rows, t]`
    /// - output: logits `[rows, t, vocab]` of the tokens after each of them
    ///
    /// # Panics
    /// When the last token of a block is among the inputs.
    fn decode_guessed(&mut self, rows: &[BlockRow], ids: Tensor<2, Int>) -> Tensor<3>;
}
