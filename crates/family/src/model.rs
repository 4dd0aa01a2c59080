//! The interface of a model to training, evaluation and generation.

use block_transformer_layers::{
    batch_invariant_rows, cross_entropy, is_packed, linear_cross_entropy, project,
};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::batch::{Continuations, TokenBatch, TokenLosses};
use crate::config::FamilyConfig;
use crate::decoding::{BlockDecoding, CacheRoom};
use crate::precision::{self, Precision};

/// A language model of a family.
pub trait Family: Module + 'static {
    /// Configuration of the family's models.
    type Config: FamilyConfig;

    /// A model with initial weights drawn from `seed`.
    fn init(config: &Self::Config, seed: u64, device: &Device) -> Self;

    /// The model's configuration.
    fn config(&self) -> Self::Config;

    /// Hidden states from which the LM head computes the logits of the predicted tokens. These are
    /// all tokens except those of the first block.
    ///
    /// # Shapes
    /// `[batch * (time - block_length), width]`
    fn hidden(&self, batch: &TokenBatch) -> Tensor<2>;

    /// The matrix `[width, vocab]` of the LM head.
    fn head(&self) -> Tensor<2>;

    /// Hidden states of the blocks `written`, `[count, block_length, width]`. Each of them follows
    /// its context.
    fn continuation_hidden(&self, batch: Continuations) -> Tensor<3>;

    /// The model with empty caches on `device`. The model must not be on an autodiff device.
    fn decoder(&self, room: CacheRoom, device: &Device) -> Box<dyn BlockDecoding>;

    /// The model with its weights stored in `precision`, for inference. With bf16, decoding a token
    /// reads half the bytes, with integers a quarter. burn's ndarray backend has no bf16. Only burn-flex has
    /// products with integers, for matrices whose number of columns is a multiple of 16; other matrices stay
    /// f32. With integers, the model is [`prepared`](Self::prepared).
    fn with_precision(self, precision: Precision) -> Self {
        precision::with_matrices(self, precision.matrices())
    }

    /// The model with the matrices of its linear layers in the layout that the device multiplies
    /// fastest, for inference. On burn-flex, these are panels of columns, and the bits of a row of a
    /// product then depend on no other row. On other devices, the model stays as it is. A prepared model
    /// cannot be trained, exported or saved.
    fn prepared(self) -> Self {
        precision::packed(self)
    }

    /// The largest number of rows of a product for which the bits of a row do not depend on the others;
    /// `None` where there is no such number. There is no limit for a [prepared](Self::prepared) model whose
    /// LM head is a matrix of its own.
    fn batch_invariant_rows(&self) -> Option<usize> {
        let head = self.head();
        let rows = batch_invariant_rows(&head.device())?;
        let unlimited = is_packed(&head) && precision::all_packed(self);
        Some(if unlimited { usize::MAX } else { rows })
    }

    /// Bytes of the parameters as they are stored.
    fn weight_bytes(&self) -> u64 {
        precision::stored_bytes(self)
    }

    /// Logits of the predicted tokens, and the ids of these tokens. The tokens of the first block
    /// are not predicted.
    ///
    /// # Shapes
    /// `[batch, predicted, vocab]`, `[batch, predicted]`
    fn predict(&self, batch: &TokenBatch) -> (Tensor<3>, Tensor<2, Int>) {
        let targets = batch.targets();
        let [b, predicted] = targets.dims();
        let logits = project(self.hidden(batch), self.head(), None);
        let [_, vocab] = logits.dims();
        (logits.reshape([b, predicted, vocab]), targets)
    }

    /// Mean cross-entropy over the predicted tokens without padding, `[1]`, in nats per token: the
    /// training loss. Only the logits of a few rows are in memory at a time.
    fn loss(&self, batch: &TokenBatch) -> Tensor<1> {
        let hidden = self.hidden(batch);
        let [rows, _] = hidden.dims();
        let targets = batch.targets().reshape([rows]);
        let weights = batch.weights(&hidden.device()).reshape([rows]);
        linear_cross_entropy(hidden, self.head(), targets, weights)
    }

    /// Cross-entropy of every predicted token.
    fn losses(&self, batch: &TokenBatch) -> TokenLosses {
        let (logits, targets) = self.predict(batch);
        let [b, predicted, vocab] = logits.dims();
        let rows = b * predicted;
        let losses = cross_entropy(logits.reshape([rows, vocab]), targets.reshape([rows]));
        let weights = batch.weights(&losses.device());
        TokenLosses { losses: losses.reshape([b, predicted]) * weights.clone(), weights }
    }
}
