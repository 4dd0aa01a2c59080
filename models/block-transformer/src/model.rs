//! The model of three parts: embedder, block decoder and token decoder.

use block_transformer_family::PaddingMask;
use block_transformer_layers::neox::{NeoXStack, StackCache};
use block_transformer_layers::{Init, Positions, causal_by_block};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::config::BlockTransformerConfig;
use crate::embedder::Embedder;
use crate::token_decoder::TokenDecoder;

/// A Block Transformer language model.
#[derive(Module, Debug)]
pub struct BlockTransformer {
    embedder: Embedder,
    block_decoder: NeoXStack,
    pub(crate) token_decoder: TokenDecoder,
    #[module(skip)]
    pub(crate) config: BlockTransformerConfig,
}

/// The KV caches of the block decoder, `e` positions per block.
pub type BlockCache = StackCache;

impl BlockTransformer {
    /// A model with parameters drawn from `init`.
    pub fn new(config: &BlockTransformerConfig, init: &Init) -> Self {
        Self {
            embedder: Embedder::new(config, &init.at("embedder")),
            block_decoder: NeoXStack::new(&config.block_decoder, &init.at("block_decoder")),
            token_decoder: TokenDecoder::new(config, &init.at("token_decoder")),
            config: config.clone(),
        }
    }

    /// Block embeddings of the blocks `ids`.
    ///
    /// # Shapes
    /// - `ids`: `[b, n, l]`
    /// - `is_token`: `[b, n * l]`
    /// - output: `[b, n * e, d]`
    pub fn embed(&self, ids: Tensor<3, Int>, is_token: &PaddingMask) -> Tensor<3> {
        self.embedder.forward(ids, is_token)
    }

    /// Context embeddings of block embeddings. Blocks that contain only padding are masked as keys.
    ///
    /// # Shapes
    /// - `embedded`: `[b, n * e, d]`
    /// - `is_token`: `[b, n * l]`
    /// - output: `[b, n * e, d]`; the token decoder writes block `i + 1` from the output of block `i`
    pub fn contexts(&self, embedded: Tensor<3>, is_token: &PaddingMask) -> Tensor<3> {
        let ([_, time, _], e) = (embedded.dims(), self.embeddings_per_block());
        let key_mask = is_token.block_keys(self.config.block_length, e);
        let at = Positions::Same(0);
        let mask = causal_by_block(&at, time, e, key_mask);
        self.block_decoder.forward(embedded, &mask, &self.block_decoder.rotary(&at, time))
    }

    /// Adds the new blocks at `at` (counted in blocks) to `cache`. Returns the context embeddings of
    /// each row's last `keep` blocks.
    ///
    /// # Shapes
    /// - `embedded`: `[rows, n * e, d]`
    /// - output: `[rows, keep * e, d]`
    pub fn contexts_cached(
        &self,
        embedded: Tensor<3>,
        at: &Positions,
        keep: usize,
        cache: &mut BlockCache,
    ) -> Tensor<3> {
        let ([_, time, _], e) = (embedded.dims(), self.embeddings_per_block());
        let at = at.scaled(e);
        let rotary = self.block_decoder.rotary(&at, time);
        self.block_decoder.append(embedded, &rotary, &at, e, keep * e, cache)
    }

    /// See [`TokenDecoder::with_published_positions`].
    pub fn with_published_positions(mut self) -> Self {
        self.token_decoder = self.token_decoder.with_published_positions();
        self
    }

    /// The token decoder.
    pub fn token_decoder(&self) -> &TokenDecoder {
        &self.token_decoder
    }

    /// Embedding vectors per block (`e`).
    pub fn embeddings_per_block(&self) -> usize {
        self.config.embeddings_per_block()
    }

    /// Empty caches of `slots` sequences of up to `blocks` blocks.
    pub fn new_cache(&self, slots: usize, blocks: usize, device: &Device) -> BlockCache {
        self.block_decoder.new_cache(slots, blocks * self.embeddings_per_block(), device)
    }
}
