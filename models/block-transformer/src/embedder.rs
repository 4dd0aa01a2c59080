//! The embedder: from blocks of token ids to block embeddings.

use block_transformer_family::PaddingMask;
use block_transformer_layers::{BlockConv, Init, embed, neox::NeoXStack, roberta::RobertaEncoder};
use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Bool, Int, Tensor};

use crate::config::{BlockTransformerConfig, EmbedderConfig, Projection};

/// Token id of CLS and BOS tokens. It is the id of EOS.
pub(crate) const BOS: i64 = 0;

/// Turns each token of a block into a vector.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub(crate) enum TokenVectors {
    /// An embedding table.
    Lookup(Embedding),
    /// A bidirectional encoder over the block.
    Roberta(RobertaEncoder),
}

/// Turns each block of `l` tokens into `e` vectors of width `d`.
#[derive(Module, Debug)]
pub struct Embedder {
    embeddings: TokenVectors,
    projection_layer: Option<BlockConv>,
    n_cls_tokens: usize,
    per_block: usize,
}

impl Embedder {
    pub(crate) fn new(config: &BlockTransformerConfig, init: &Init) -> Self {
        let (vocab, embed) = (config.vocab_size, init.at("embeddings"));
        let (embeddings, n_cls_tokens) = match &config.embedder {
            EmbedderConfig::Lookup(c) => {
                let table = embed.embedding("Lookup", vocab, c.hidden_size, NeoXStack::INIT_STD);
                (TokenVectors::Lookup(table), 0)
            }
            EmbedderConfig::Roberta(c) | EmbedderConfig::RobertaCls(c) => {
                let encoder = RobertaEncoder::new(&c.encoder, vocab, &embed.at("Roberta"));
                (TokenVectors::Roberta(encoder), c.n_cls_tokens.unwrap_or(0))
            }
        };
        let (part, parts, projection) = config.embedder.parts(config.block_length);
        let per_block = config.embeddings_per_block();
        let kernel = parts / per_block;
        let projection_layer = (projection == Projection::ProjectionLayer).then(|| {
            let std = ((part * kernel) as f64).powf(-0.5);
            let width = config.block_decoder.hidden_size;
            BlockConv::new(&init.at("projection_layer"), part, width, kernel, std)
        });
        Self { embeddings, projection_layer, n_cls_tokens, per_block }
    }

    /// # Shapes
    /// - `ids`: `[b, n, l]`
    /// - `is_token`: `[b, n * l]`; the lookup embedder treats padding like any other id
    /// - output: `[b, n * e, d]`
    pub fn forward(&self, ids: Tensor<3, Int>, is_token: &PaddingMask) -> Tensor<3> {
        let [b, n, l] = ids.dims();
        let ids = ids.reshape([b * n, l]);
        let vectors = match &self.embeddings {
            TokenVectors::Lookup(table) => embed(table, ids), // [b * n, l, w]
            TokenVectors::Roberta(encoder) => {
                let is_token = is_token.to_tensor([b * n, l], &ids.device());
                let (ids, is_token) = self.with_cls(ids, is_token);
                let states = encoder.forward(ids, is_token);
                match self.n_cls_tokens {
                    0 => states,
                    n_cls => states.narrow(1, 0, n_cls),
                }
            }
        };
        let vectors = match &self.projection_layer {
            Some(projection) => projection.forward(vectors), // [b * n, e, d]
            None => vectors,
        };
        let [_, parts, width] = vectors.dims();
        // concatenation is a reshape, because the parts of one vector are adjacent
        vectors.reshape([b, n * self.per_block, parts * width / self.per_block])
    }

    fn with_cls(
        &self,
        ids: Tensor<2, Int>,
        is_token: Tensor<2, Bool>,
    ) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        if self.n_cls_tokens == 0 {
            return (ids, is_token);
        }
        let ([rows, _], device) = (ids.dims(), ids.device());
        let cls = Tensor::full([rows, self.n_cls_tokens], BOS, &device);
        let seen = Tensor::<2, Int>::ones([rows, self.n_cls_tokens], &device).bool();
        (Tensor::cat(vec![cls, ids], 1), Tensor::cat(vec![seen, is_token], 1))
    }
}
