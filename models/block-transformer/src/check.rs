//! Checks that the sizes of a configuration fit together.

use block_transformer_family::{Conditioning, InvalidConfig, check_ids};

use crate::config::{
    BlockTransformerConfig, EmbedderConfig, NeoXTokenDecoderConfig, Projection,
    RobertaEmbedderConfig, T5TokenDecoderConfig, TokenDecoderConfig,
};

/// Largest number of tokens per block, and of vectors of any kind per block.
const MAX_BLOCK: usize = 1 << 12;

impl BlockTransformerConfig {
    /// Checks every part, and that the parts fit together.
    pub(crate) fn check_parts(&self) -> Result<(), InvalidConfig> {
        let (l, e) = (self.block_length, self.embeddings_per_block());
        check_ids(self.vocab_size, self.max_position_embeddings)?;
        InvalidConfig::check_size("block_length", l, MAX_BLOCK)?;
        self.block_decoder.check().map_err(|error| error.under("block_decoder"))?;
        let width = self.block_decoder.hidden_size;
        self.embedder.check(l, width).map_err(|error| error.under("embedder"))?;
        let (token_decoder, strategy) = match &self.token_decoder {
            TokenDecoderConfig::NeoX(c) => (c.check(), c.decoding_strategy),
            TokenDecoderConfig::T5(c) => (c.check(), c.decoding_strategy),
        };
        token_decoder.map_err(|error| error.under("token_decoder"))?;
        // a prefix can have any length; with the other strategies each token gets one vector
        if strategy != Conditioning::Prefix && !l.is_multiple_of(e) {
            let reason = format!("{l} must be a multiple of the {e} embeddings per block");
            return Err(InvalidConfig::new("block_length", reason));
        }
        Ok(())
    }
}

impl EmbedderConfig {
    /// Checks that blocks of `block_length` tokens become vectors of `width`.
    fn check(&self, block_length: usize, width: usize) -> Result<(), InvalidConfig> {
        let e = self.n_embedding_tokens();
        InvalidConfig::check_size("n_embedding_tokens", e, MAX_BLOCK)?;
        match self {
            Self::Lookup(c) => {
                InvalidConfig::check_size("hidden_size", c.hidden_size, InvalidConfig::MAX_WIDTH)?;
            }
            Self::Roberta(c) => c.check(block_length, false)?,
            Self::RobertaCls(c) => c.check(block_length, true)?,
        }
        let (part, parts, projection) = self.parts(block_length);
        if !parts.is_multiple_of(e) {
            let reason = format!("{e} embeddings per block do not divide its {parts} vectors");
            return Err(InvalidConfig::new("n_embedding_tokens", reason));
        }
        let joined = parts / e;
        if projection == Projection::Concat && part * joined != width {
            let reason = format!(
                "{joined} vectors of {part} side by side are {} wide, but block_decoder.hidden_size \
                 is {width}",
                part * joined
            );
            return Err(InvalidConfig::new("hidden_size", reason));
        }
        Ok(())
    }
}

impl RobertaEmbedderConfig {
    fn check(&self, block_length: usize, has_cls: bool) -> Result<(), InvalidConfig> {
        match (has_cls, self.n_cls_tokens) {
            (true, None) => {
                return Err(InvalidConfig::new("n_cls_tokens", "is missing; roberta_cls needs it"));
            }
            (true, Some(n)) => InvalidConfig::check_size("n_cls_tokens", n, MAX_BLOCK)?,
            (false, Some(n)) if n > 0 => {
                return Err(InvalidConfig::new("n_cls_tokens", "belongs to roberta_cls only"));
            }
            (false, _) => {}
        }
        self.encoder.check(block_length + self.n_cls_tokens.unwrap_or(0))
    }
}

impl NeoXTokenDecoderConfig {
    fn check(&self) -> Result<(), InvalidConfig> {
        match (self.decoding_strategy, self.expansion_ratio) {
            (Conditioning::CrossAttention, _) => {
                return Err(InvalidConfig::new(
                    "decoding_strategy",
                    "cross_attention needs cls t5",
                ));
            }
            (Conditioning::Prefix, Some(ratio)) => {
                InvalidConfig::check_size("expansion_ratio", ratio, MAX_BLOCK)?;
            }
            (Conditioning::Summation, Some(_)) => {
                let reason = "belongs to the decoding strategy prefix only";
                return Err(InvalidConfig::new("expansion_ratio", reason));
            }
            (_, None) => {}
        }
        if self.stack.rope_scaling.is_some() {
            let reason = "belongs to block_decoder only: no block is longer than in training";
            return Err(InvalidConfig::new("rope_scaling", reason));
        }
        self.stack.check()
    }
}

impl T5TokenDecoderConfig {
    fn check(&self) -> Result<(), InvalidConfig> {
        if self.decoding_strategy != Conditioning::CrossAttention {
            return Err(InvalidConfig::new("decoding_strategy", "t5 has cross_attention only"));
        }
        self.stack.check()
    }
}

#[cfg(test)]
mod tests {
    use block_transformer_family::FamilyConfig;
    use block_transformer_layers::neox::{NeoXConfig, RopeKind, RopeScaling};
    use block_transformer_layers::t5::T5Config;

    use super::*;
    use crate::config::LookupConfig;

    fn lookup(hidden_size: usize, n_embedding_tokens: usize) -> EmbedderConfig {
        let projection_method = Projection::Concat;
        EmbedderConfig::Lookup(LookupConfig { hidden_size, projection_method, n_embedding_tokens })
    }

    fn neox(decoding_strategy: Conditioning, expansion_ratio: Option<usize>) -> TokenDecoderConfig {
        let stack = NeoXConfig::new(32, 2, 2);
        TokenDecoderConfig::NeoX(NeoXTokenDecoderConfig {
            decoding_strategy,
            expansion_ratio,
            stack,
        })
    }

    fn linear(factor: f64) -> Option<RopeScaling> {
        Some(RopeScaling { rope_type: RopeKind::Linear, factor })
    }

    fn t5(decoding_strategy: Conditioning, d_kv: usize) -> TokenDecoderConfig {
        let stack = T5Config {
            hidden_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            d_kv,
            d_ff: 48,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
        };
        TokenDecoderConfig::T5(T5TokenDecoderConfig { decoding_strategy, stack })
    }

    #[test]
    fn errors_name_the_key_and_its_table() {
        let valid = BlockTransformerConfig {
            vocab_size: 40,
            block_length: 4,
            max_position_embeddings: 64,
            embedder: lookup(8, 1),
            block_decoder: NeoXConfig::new(32, 2, 2),
            token_decoder: neox(Conditioning::Prefix, Some(2)),
        };
        assert_eq!(valid.check(), Ok(()));
        type Change = fn(&mut BlockTransformerConfig);
        let cases: [(&str, Change); 12] = [
            ("vocab_size", |c| c.vocab_size = 1),
            ("block_length", |c| c.block_length = 0),
            ("block_decoder.num_attention_heads", |c| c.block_decoder.num_attention_heads = 5),
            ("block_decoder.hidden_size", |c| c.block_decoder.hidden_size = 1 << 60),
            ("embedder.hidden_size", |c| c.embedder = lookup(9, 1)),
            ("embedder.n_embedding_tokens", |c| c.embedder = lookup(8, 3)),
            ("token_decoder.expansion_ratio", |c| {
                c.token_decoder = neox(Conditioning::Summation, Some(2));
            }),
            ("token_decoder.decoding_strategy", |c| {
                c.token_decoder = neox(Conditioning::CrossAttention, None);
            }),
            ("block_decoder.rope_scaling.factor", |c| c.block_decoder.rope_scaling = linear(0.5)),
            ("token_decoder.rope_scaling", |c| {
                let mut stack = NeoXConfig::new(32, 2, 2);
                stack.rope_scaling = linear(2.0);
                let decoding_strategy = Conditioning::Summation;
                c.token_decoder = TokenDecoderConfig::NeoX(NeoXTokenDecoderConfig {
                    decoding_strategy,
                    expansion_ratio: None,
                    stack,
                });
            }),
            ("token_decoder.d_kv", |c| c.token_decoder = t5(Conditioning::CrossAttention, 0)),
            ("token_decoder.decoding_strategy", |c| c.token_decoder = t5(Conditioning::Prefix, 8)),
        ];
        for (key, change) in cases {
            let mut config = valid.clone();
            change(&mut config);
            assert_eq!(config.check().unwrap_err().key, key);
        }
    }
}
