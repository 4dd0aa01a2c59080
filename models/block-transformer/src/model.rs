//! The model of three parts: embedder, block decoder and token decoder.

use block_transformer_family::PaddingMask;
use block_transformer_layers::neox::NeoXStack;
use block_transformer_layers::{Positions, causal_by_block};
use burn::module::Module;
use burn::tensor::{Int, Tensor};

use crate::config::BlockTransformerConfig;
use crate::embedder::Embedder;
use crate::token_decoder::TokenDecoder;

/// A Block Transformer language model.
#[derive(Module, Debug)]
pub struct BlockTransformer {
    pub(crate) embedder: Embedder,
    pub(crate) block_decoder: NeoXStack,
    pub(crate) token_decoder: TokenDecoder,
    #[module(skip)]
    pub(crate) config: BlockTransformerConfig,
}

impl BlockTransformer {
    /// Block embeddings of the blocks `ids`.
    ///
    /// # Shapes
    /// - `ids`: `[b, n, l]`
    /// - `is_token`: `[b, n * l]`
    /// - output: `[b, n * e, d]`
    pub fn embed(&self, ids: Tensor<3, Int>, is_token: &PaddingMask) -> Tensor<3> {
        self.embedder.forward(ids, is_token)
    }

    /// Context embeddings of block embeddings. Blocks that contain only padding are masked as
    /// keys.
    ///
    /// # Shapes
    /// - `embedded`: `[b, n * e, d]`
    /// - `is_token`: `[b, n * l]`
    /// - output: `[b, n * e, d]`; the token decoder writes block `i + 1` from the output of block
    ///   `i`
    pub fn contexts(&self, embedded: Tensor<3>, is_token: &PaddingMask) -> Tensor<3> {
        let ([_, time, _], e) = (embedded.dims(), self.config.embeddings_per_block());
        let key_mask = is_token.block_keys(self.config.block_length, e);
        let at = Positions::Same(0);
        let mask = causal_by_block(&at, time, e, key_mask);
        self.block_decoder.forward(embedded, &mask, &self.block_decoder.rotary(&at, time))
    }

    /// See [`TokenDecoder::with_published_positions`].
    pub fn with_published_positions(mut self) -> Self {
        self.token_decoder = self.token_decoder.with_published_positions();
        self
    }
}
