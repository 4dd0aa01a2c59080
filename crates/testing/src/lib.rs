//! Small models of every shape, and prompts, for the tests of several crates.

pub mod repeat_training;
pub mod repeats;

use block_transformer_zoo::block::TokenDecoderConfig;
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};

/// The vocabulary of the byte tokenizer, and two unused rows.
pub const VOCAB: usize = 260;

const NEOX: &str = r#""hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2"#;
const LOOKUP: &str = r#""cls": "lookup", "hidden_size": 8, "projection_method": "concat""#;
const ROBERTA: &str = r#""projection_method": "projection_layer", "hidden_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16"#;
const PREFIX: &str = r#""cls": "gpt-neo-x", "decoding_strategy": "prefix""#;
const SUMMATION: &str = r#""cls": "gpt-neo-x", "decoding_strategy": "summation""#;
const CROSS: &str = r#""cls": "t5", "decoding_strategy": "cross_attention", "d_kv": 8, "d_ff": 48"#;

/// Returns a configuration of every shape, with its name.
///
/// # Panics
/// When a configuration is invalid. This would be a bug of this function.
pub fn shapes() -> Vec<(&'static str, ModelConfig)> {
    let block = |length: usize, embedder: &str, decoder: &str| {
        format!(
            r#"{{ "vocab_size": {VOCAB}, "block_length": {length}, "embedder": {{ {embedder} }},
                "block_decoder": {{ {NEOX} }}, "token_decoder": {{ {decoder}, {NEOX} }} }}"#
        )
    };
    let vanilla = |parallel| {
        format!(r#"{{ "vocab_size": {VOCAB}, "use_parallel_residual": {parallel}, {NEOX} }}"#)
    };
    let prefix_of_two = format!(r#"{PREFIX}, "expansion_ratio": 2"#);
    let cls = format!(r#""cls": "roberta_cls", "n_cls_tokens": 2, {ROBERTA}"#);
    let roberta = format!(r#""cls": "roberta", {ROBERTA}"#);
    let whole = LOOKUP.replace('8', "32");
    let two_embeddings = format!(r#"{}, "n_embedding_tokens": 2"#, LOOKUP.replace('8', "16"));
    let unequal_widths = block(
        4,
        &format!(r#"{}, "n_embedding_tokens": 2"#, LOOKUP.replace('8', "24")),
        &format!(r#"{PREFIX}, "expansion_ratio": 3"#),
    )
    .replacen(NEOX, &NEOX.replace("32", "48").replace("layers\": 2", "layers\": 3"), 1);
    let shapes = [
        ("prefix", block(4, LOOKUP, &prefix_of_two)),
        ("summation", block(4, LOOKUP, SUMMATION)),
        ("cross-attention", block(4, LOOKUP, CROSS)),
        ("cls, summation", block(4, &cls, SUMMATION)),
        ("roberta", block(4, &roberta, PREFIX)),
        ("two embeddings", block(4, &two_embeddings, PREFIX)),
        ("two embeddings, summation", block(4, &two_embeddings, SUMMATION)),
        ("unequal widths", unequal_widths),
        ("length 1", block(1, &whole, PREFIX)),
        ("vanilla", vanilla(true)),
        ("vanilla, sequential", vanilla(false)),
    ];
    shapes
        .into_iter()
        .map(|(name, json)| (name, ModelConfig::from_json(&json, name).unwrap()))
        .collect()
}

/// Returns the configuration of [`shapes`] called `name`.
///
/// # Panics
/// When there is no such configuration.
pub fn shape(name: &str) -> ModelConfig {
    shapes().into_iter().find(|(other, _)| *other == name).unwrap().1
}

/// Returns a random model with weights so large that its output depends on every token.
pub fn model(config: &ModelConfig, device: &Device) -> LanguageModel {
    struct EnlargeWeights {
        t5: bool,
    }
    impl ModuleMapper for EnlargeWeights {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let factor = match param.dims().as_slice() {
                // the tied table of T5 has large initial values, with which the model would only
                // repeat its input
                [VOCAB, 32] if self.t5 => 0.1,
                [_] => 1.0,
                _ => 5.0,
            };
            param.map(|value| value * factor)
        }
    }
    let t5 = matches!(
        config,
        ModelConfig::Block(block) if matches!(block.token_decoder, TokenDecoderConfig::T5(_))
    );
    config.init(11, device).map(&mut EnlargeWeights { t5 })
}

/// Returns prompts of 0, 1, 2, ... `count - 1` tokens.
pub fn prompts(count: u32) -> Vec<Vec<u32>> {
    (0..count).map(|n| (0..n).map(|i| 2 + (i * 37 + n * 11) % 250).collect()).collect()
}

/// Returns prompts of these lengths.
pub fn prompts_of(lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u32>> {
    let prompt = |n: usize| (0..n).map(move |i| 2 + ((i * 37 + i * i % 11 + n * 13) % 250) as u32);
    lengths.into_iter().map(|length| prompt(length).collect()).collect()
}

/// The token id whose embedding [`damaged`] sets to NaN.
pub const DAMAGED: u32 = 9;

/// Returns the model with the embedding of [`DAMAGED`] set to NaN.
pub fn damaged(model: LanguageModel) -> LanguageModel {
    struct Damage;
    impl ModuleMapper for Damage {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if param.dims().as_slice() != [VOCAB, 32] {
                return param;
            }
            param.map(|value| {
                let row = DAMAGED as usize..DAMAGED as usize + 1;
                let mut all: [std::ops::Range<usize>; D] = value.dims().map(|size| 0..size);
                all[0] = row;
                let nan = value.clone().slice(all.clone()) * f32::NAN;
                value.slice_assign(all, nan)
            })
        }
    }
    model.map(&mut Damage)
}
