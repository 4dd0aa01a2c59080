//! The model as a family: constructor, hidden states and decoding state.

use block_transformer_family::{
    BlockDecoding, CacheRoom, Continuations, Family, PaddingMask, TokenBatch,
};
use block_transformer_layers::neox::NeoXStack;
use block_transformer_layers::{Init, int_tensor};
use burn::tensor::{Device, Tensor};

use crate::config::BlockTransformerConfig;
use crate::decoding::BlockDecodingState;
use crate::embedder::Embedder;
use crate::model::BlockTransformer;
use crate::token_decoder::TokenDecoder;

impl Family for BlockTransformer {
    type Config = BlockTransformerConfig;

    fn init(config: &BlockTransformerConfig, seed: u64, device: &Device) -> Self {
        let init = Init::new(seed, device);
        Self {
            embedder: Embedder::new(config, &init.at("embedder")),
            block_decoder: NeoXStack::new(&config.block_decoder, &init.at("block_decoder")),
            token_decoder: TokenDecoder::new(config, &init.at("token_decoder")),
            config: config.clone(),
        }
    }

    fn config(&self) -> BlockTransformerConfig {
        self.config.clone()
    }

    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        let ([b, time], l) = (batch.ids.dims(), self.config.block_length);
        let (n, e) = (time / l, self.config.embeddings_per_block());
        let ids = batch.ids.clone().reshape([b, n, l]);
        let embedded = self.embed(ids.clone(), &batch.is_token);
        let contexts = self.contexts(embedded, &batch.is_token);
        let [_, _, d] = contexts.dims();
        let rows = b * (n - 1);
        // the last context embedding has no block to predict: [b, n * e, d] -> [b * (n - 1), e, d]
        let contexts = contexts.narrow(1, 0, (n - 1) * e).reshape([rows, e, d]);
        let targets = ids.narrow(1, 1, n - 1).reshape([rows, l]);
        let hidden = self.token_decoder.hidden(contexts, targets); // [rows, l, h]
        let [_, _, h] = hidden.dims();
        hidden.reshape([rows * l, h])
    }

    fn head(&self) -> Tensor<2> {
        self.token_decoder.head()
    }

    fn continuation_hidden(&self, batch: Continuations) -> Tensor<3> {
        let Continuations { ids, is_token, before, written } = batch;
        let ([rows, n, _], device, count) = (ids.dims(), ids.device(), before.len());
        let embedded = self.embed(ids, &is_token);
        // blocks of padding come after all blocks that are read, so causal attention does not
        // reach them
        let contexts = self.contexts(embedded, &PaddingMask::full()); // [rows, n * e, d]
        let ([_, _, d], e) = (contexts.dims(), self.config.embeddings_per_block());
        let before = int_tensor(before, &device);
        let contexts = contexts.reshape([rows * n, e * d]).select(0, before);
        self.token_decoder.hidden(contexts.reshape([count, e, d]), written)
    }

    fn decoder(&self, room: CacheRoom, device: &Device) -> Box<dyn BlockDecoding> {
        Box::new(BlockDecodingState::new(self.clone(), room, device))
    }
}
