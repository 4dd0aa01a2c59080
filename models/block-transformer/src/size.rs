//! Counts of parameters, and shapes of the stacks.

use block_transformer_family::{
    BLOCK_FAMILY, Conditioning, EmbedderShape, FamilyConfig, InvalidConfig, Stacks,
    TokenDecoderShape,
};

use crate::config::{BlockTransformerConfig, EmbedderConfig, Projection, TokenDecoderConfig};

impl EmbedderConfig {
    fn num_params(&self, vocab: usize, block_length: usize, width: usize) -> usize {
        let tables = match self {
            Self::Lookup(c) => vocab * c.hidden_size,
            Self::Roberta(c) | Self::RobertaCls(c) => c.encoder.num_params(vocab),
        };
        match self.projected(block_length) {
            0 => tables,
            from => tables + (from + 1) * width,
        }
    }

    /// Input elements of the projection layer per block embedding; 0 without a projection layer.
    fn projected(&self, block_length: usize) -> usize {
        let (part, parts, projection) = self.parts(block_length);
        match projection {
            Projection::Concat => 0,
            Projection::ProjectionLayer => part * parts / self.n_embedding_tokens(),
        }
    }
}

impl FamilyConfig for BlockTransformerConfig {
    fn family(&self) -> &'static str {
        BLOCK_FAMILY
    }

    fn with_vocab_size(self, vocab_size: usize) -> Self {
        Self { vocab_size, ..self }
    }

    fn max_position_embeddings(&self) -> usize {
        self.max_position_embeddings
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        self.check_parts()
    }

    fn num_params(&self) -> usize {
        let embedder = match &self.embedder {
            EmbedderConfig::Lookup(c) => c.hidden_size,
            EmbedderConfig::Roberta(c) | EmbedderConfig::RobertaCls(c) => c.encoder.hidden_size,
        };
        // T5 uses one table for the embedding and the LM head
        let tables = if matches!(self.token_decoder, TokenDecoderConfig::T5(_)) { 1 } else { 2 };
        let embedding = self.vocab_size * (embedder + tables * self.token_decoder.hidden_size());
        self.num_params_non_embedding() + embedding
    }

    fn num_params_non_embedding(&self) -> usize {
        let d = self.block_decoder.hidden_size;
        let expanded = self.token_decoder.hidden_size() * self.expansion();
        let decoder = match &self.token_decoder {
            TokenDecoderConfig::NeoX(c) => c.stack.num_params(),
            TokenDecoderConfig::T5(c) => c.stack.num_params(),
        };
        let embedder = self.embedder.num_params(0, self.block_length, d);
        embedder + self.block_decoder.num_params() + (d + 1) * expanded + decoder
    }

    fn stacks(&self) -> Stacks {
        let (l, e) = (self.block_length, self.embeddings_per_block());
        let (stack, conditioning) = match &self.token_decoder {
            TokenDecoderConfig::NeoX(c) => ((&c.stack).into(), c.decoding_strategy),
            TokenDecoderConfig::T5(c) => ((&c.stack).into(), c.decoding_strategy),
        };
        let encoder = match &self.embedder {
            EmbedderConfig::Lookup(_) => None,
            EmbedderConfig::Roberta(c) | EmbedderConfig::RobertaCls(c) => {
                Some(((&c.encoder).into(), l + c.n_cls_tokens.unwrap_or(0)))
            }
        };
        let (part, parts, _) = self.embedder.parts(l);
        Stacks {
            block_length: l,
            embeddings_per_block: e,
            vocab_size: self.vocab_size,
            context: (&self.block_decoder).into(),
            embedder: Some(EmbedderShape {
                encoder,
                joined: part * parts,
                projection_params: self.embedder.projected(l) * self.block_decoder.hidden_size,
            }),
            token: Some(TokenDecoderShape {
                stack,
                vectors: e * self.expansion(),
                conditioning,
                // T5 uses one table for the embedding and the LM head
                tied_head: conditioning == Conditioning::CrossAttention,
            }),
        }
    }
}
