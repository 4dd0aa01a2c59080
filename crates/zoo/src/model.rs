//! A model of either family, and what training and evaluation ask of it.

use block_transformer_gpt_neox::GptNeoX;
use block_transformer_layers::{cross_entropy, linear_cross_entropy};
use block_transformer_model::BlockTransformer;
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};

/// A language model of either family.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one model lives at a time")]
pub enum LanguageModel {
    /// Block Transformer.
    Block(BlockTransformer),
    /// Vanilla GPT-NeoX.
    Vanilla(GptNeoX),
}

/// Windows of tokens.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// `[batch, time]`
    pub ids: Tensor<2, Int>,
    /// `[batch, time]`, false at padding.
    pub real: Tensor<2, Bool>,
    /// Tokens a block; `time` is a multiple of it.
    pub block_length: usize,
}

/// Losses of the tokens a model predicts.
#[derive(Clone, Debug)]
pub struct TokenLosses {
    /// Negative log-likelihood in nats, `[batch, predicted]`; 0 at padding.
    pub losses: Tensor<2>,
    /// 1 where a real token is predicted, `[batch, predicted]`.
    pub weights: Tensor<2>,
    /// `[batch, predicted, vocab]`
    pub logits: Tensor<3>,
    /// `[batch, predicted]`
    pub targets: Tensor<2, Int>,
}

impl TokenLosses {
    /// Mean over real tokens, `[1]`.
    pub fn mean(&self) -> Tensor<1> {
        self.losses.clone().sum() / self.weights.clone().sum()
    }
}

impl LanguageModel {
    /// Logits of the predicted tokens and those tokens: all but the first block (of a vanilla
    /// model: the first token).
    ///
    /// # Shapes
    /// `[batch, predicted, vocab]`, `[batch, predicted]`
    pub fn predict(&self, batch: &TokenBatch) -> (Tensor<3>, Tensor<2, Int>) {
        let [b, time] = batch.ids.dims();
        let first = batch.block_length;
        let targets = batch.ids.clone().narrow(1, first, time - first);
        let logits = match self {
            Self::Block(model) => {
                let blocks = [b, time / first, first];
                let logits = model
                    .forward(batch.ids.clone().reshape(blocks), batch.real.clone().reshape(blocks));
                let [b, n, l, v] = logits.dims();
                logits.reshape([b, n * l, v])
            }
            // the last token is an input to nothing
            Self::Vanilla(model) => model.forward(batch.ids.clone().narrow(1, 0, time - 1)),
        };
        (logits, targets)
    }

    /// Mean cross-entropy over the real tokens that are predicted, `[1]`: what training minimises.
    /// Holds a few rows of logits at a time.
    pub fn loss(&self, batch: &TokenBatch) -> Tensor<1> {
        let [b, time] = batch.ids.dims();
        let first = batch.block_length;
        let (hidden, head) = match self {
            Self::Block(model) => {
                let blocks = [b, time / first, first];
                let (ids, real) = (batch.ids.clone(), batch.real.clone());
                let hidden = model.hidden(ids.reshape(blocks), real.reshape(blocks));
                (hidden, model.token_decoder().head())
            }
            Self::Vanilla(model) => {
                let known = batch.ids.clone().narrow(1, 0, time - 1);
                (model.hidden(known), model.head())
            }
        };
        let (rows, [_, _, width]) = (b * (time - first), hidden.dims());
        let predicted = |ids: Tensor<2, Int>| ids.narrow(1, first, time - first).reshape([rows]);
        linear_cross_entropy(
            hidden.reshape([rows, width]),
            head,
            predicted(batch.ids.clone()),
            predicted(batch.real.clone().int()).float(),
        )
    }

    /// Cross-entropy of every predicted token.
    pub fn losses(&self, batch: &TokenBatch) -> TokenLosses {
        let (logits, targets) = self.predict(batch);
        let [b, predicted, v] = logits.dims();
        let losses = cross_entropy(
            logits.clone().reshape([b * predicted, v]),
            targets.clone().reshape([b * predicted]),
        );
        let first = batch.block_length;
        let weights = batch.real.clone().narrow(1, first, predicted).float();
        let losses = losses.reshape([b, predicted]) * weights.clone();
        TokenLosses { losses, weights, logits, targets }
    }
}
