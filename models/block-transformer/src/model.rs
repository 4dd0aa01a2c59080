//! The three parts together.

use block_transformer_layers::neox::{NeoXStack, StackCache};
use block_transformer_layers::{Init, Positions, causal_by_block};
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::{BlockTransformerConfig, Embedder, TokenDecoder};

/// A Block Transformer language model.
#[derive(Module, Debug)]
pub struct BlockTransformer {
    embedder: Embedder,
    block_decoder: NeoXStack,
    token_decoder: TokenDecoder,
    per_block: usize,
}

/// The caches of the block decoder, `e` positions a block.
pub type BlockCache = StackCache;

impl BlockTransformer {
    /// A model at `init`.
    pub fn new(config: &BlockTransformerConfig, init: &Init) -> Self {
        Self {
            embedder: Embedder::new(config, &init.at("embedder")),
            block_decoder: NeoXStack::new(&config.block_decoder, &init.at("block_decoder")),
            token_decoder: TokenDecoder::new(config, &init.at("token_decoder")),
            per_block: config.embeddings_per_block(),
        }
    }

    /// Logits of every block but the first, which nothing predicts.
    ///
    /// # Shapes
    /// - `ids`: `[b, n, l]`
    /// - `real`: `[b, n, l]`, false at padding
    /// - output: `[b, n - 1, l, v]`
    pub fn forward(&self, ids: Tensor<3, Int>, real: Tensor<3, Bool>) -> Tensor<4> {
        let [b, n, l] = ids.dims();
        let logits = self.token_decoder.logits(self.hidden(ids, real)); // [b * (n - 1), l, v]
        let [_, _, v] = logits.dims();
        logits.reshape([b, n - 1, l, v])
    }

    /// What the LM head reads the logits of every block but the first from.
    ///
    /// # Shapes
    /// - `ids`, `real`: `[b, n, l]`
    /// - output: `[b * (n - 1), l, h]`
    pub fn hidden(&self, ids: Tensor<3, Int>, real: Tensor<3, Bool>) -> Tensor<3> {
        let [b, n, l] = ids.dims();
        let contexts = self.contexts(self.embed(ids.clone(), real.clone()), Some(real));
        let e = self.per_block;
        let [_, _, d] = contexts.dims();
        let rows = b * (n - 1);
        // the last context embedding has no block to predict: [b, n * e, d] -> [b * (n - 1), e, d]
        let contexts = contexts.narrow(1, 0, (n - 1) * e).reshape([rows, e, d]);
        let targets = ids.narrow(1, 1, n - 1).reshape([rows, l]);
        self.token_decoder.hidden(contexts, targets)
    }

    /// Block embeddings `[b, n * e, d]` of the blocks `ids` `[b, n, l]`.
    pub fn embed(&self, ids: Tensor<3, Int>, real: Tensor<3, Bool>) -> Tensor<3> {
        self.embedder.forward(ids, real)
    }

    /// Context embeddings of block embeddings; the blocks that are all padding in `real` are hidden.
    ///
    /// # Shapes
    /// - `embedded`: `[b, n * e, d]`
    /// - `real`: `[b, n, l]`
    /// - output: `[b, n * e, d]`; output `i` is what block `i + 1` is written from
    pub fn contexts(&self, embedded: Tensor<3>, real: Option<Tensor<3, Bool>>) -> Tensor<3> {
        let [b, time, _] = embedded.dims();
        let seen = real.map(|real| {
            let [_, n, _] = real.dims();
            let blocks = real.any_dim(2); // [b, n, 1]
            blocks.expand([b, n, self.per_block]).reshape([b, time])
        });
        let at = Positions::Same(0);
        let mask = causal_by_block(&at, time, self.per_block, seen);
        self.block_decoder.forward(embedded, &mask, &self.block_decoder.rotary(&at, time))
    }

    /// Context embeddings of the last `keep` of the new blocks `at` (counted in blocks), which see
    /// what `cache` holds and are added to it.
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
        let ([_, time, _], e) = (embedded.dims(), self.per_block);
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

    /// Embedding vectors a block (`e`).
    pub fn embeddings_per_block(&self) -> usize {
        self.per_block
    }

    /// Empty caches of `slots` sequences of up to `blocks` blocks.
    pub fn new_cache(&self, slots: usize, blocks: usize, device: &Device) -> BlockCache {
        self.block_decoder.new_cache(slots, blocks * self.per_block, device)
    }
}
