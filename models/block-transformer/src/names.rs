//! Published parameter names of the Block Transformer family.

use block_transformer_family::{PublishedNames, rename};

use crate::config::{BlockTransformerConfig, TokenDecoderConfig};

const EMBEDDER: &[(&str, &str)] = &[
    ("embeddings.Lookup", "embeddings"),
    ("embeddings.Roberta.layer", "encoder.layer"),
    ("embeddings.Roberta.embeddings", "embeddings"),
    ("embeddings.norm", "embeddings.LayerNorm"),
    ("query", "attention.self.query"),
    ("key", "attention.self.key"),
    ("value", "attention.self.value"),
    ("intermediate", "intermediate.dense"),
    // this rule must precede those below, which produce "output"
    ("output", "output.dense"),
    ("output_norm", "output.LayerNorm"),
    ("attention_dense", "attention.output.dense"),
    ("attention_norm", "attention.output.LayerNorm"),
];

const BLOCK_DECODER: &[(&str, &str)] = &[("block_decoder", "block_decoder.gpt_neox")];

const TOKEN_DECODER: &[(&str, &str)] = &[
    ("tokens.NeoX.stack", "gpt_neox"),
    ("tokens.NeoX.embed_in", "gpt_neox.embed_in"),
    ("tokens.NeoX", ""),
    // in the published module tree, the bias belongs to the first block
    (
        "tokens.T5.stack.relative_attention_bias",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ),
    ("tokens.T5.stack", "decoder"),
    ("tokens.T5", ""),
    ("self_attention", "layer.0.SelfAttention"),
    ("self_norm", "layer.0.layer_norm"),
    ("cross_attention", "layer.1.EncDecAttention"),
    ("cross_norm", "layer.1.layer_norm"),
    ("wi", "layer.2.DenseReluDense.wi"),
    ("wo", "layer.2.DenseReluDense.wo"),
    ("feed_norm", "layer.2.layer_norm"),
];

impl PublishedNames for BlockTransformerConfig {
    fn published_names(&self, path: &str) -> Vec<String> {
        let table = match path.split('.').next() {
            Some("embedder") => EMBEDDER,
            Some("block_decoder") => BLOCK_DECODER,
            _ => TOKEN_DECODER,
        };
        let name = rename(path, table);
        match (&self.token_decoder, name.as_str()) {
            (TokenDecoderConfig::T5(_), "token_decoder.shared.weight") => {
                let tied = ["decoder.embed_tokens", "lm_head"];
                let tied = tied.map(|name| format!("token_decoder.{name}.weight"));
                std::iter::once(name).chain(tied).collect()
            }
            _ => vec![name],
        }
    }

    fn conv_kernel(&self, path: &str) -> usize {
        if !path.starts_with("embedder") {
            return 1;
        }
        let (_, parts, _) = self.embedder.parts(self.block_length);
        parts / self.embeddings_per_block()
    }

    fn unused(&self) -> Vec<(String, Vec<usize>)> {
        let shape = vec![self.vocab_size, self.block_decoder.hidden_size];
        vec![("block_decoder.gpt_neox.embed_in.weight".to_string(), shape)]
    }
}
