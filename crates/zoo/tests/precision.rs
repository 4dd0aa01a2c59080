//! Weights stored in a narrower format.

use burn::tensor::{Device, Int, Tensor, TensorData};

use block_transformer_zoo::{
    Family, FamilyConfig, ModelConfig, PaddingMask, Precision, TokenBatch, preset,
};

/// The mean loss of a random model of `config` in f32 and with bf16 matrices.
fn losses(config: &ModelConfig, device: &Device) -> [f32; 2] {
    let block_length = config.block_length();
    let ids: Vec<i64> = (0..64).map(|i| 2 + (i * 37) % 50).collect();
    let batch = TokenBatch {
        ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 32]), device),
        is_token: PaddingMask::full(),
        block_length,
    };
    let model = config.init(3, device);
    let half = model.clone().with_precision(Precision::Bf16Weights);
    [model, half].map(|model| model.loss(&batch).into_scalar::<f32>())
}

#[test]
fn bf16_matrices_change_the_loss_a_little() {
    for name in ["debug-block", "debug-vanilla"] {
        let [full, half] = losses(&preset(name).unwrap().model, &Device::flex());
        let difference = (full - half).abs();
        assert!(difference > 0.0 && difference < 2e-3, "{name}: {full} {half}");
    }
}

#[test]
fn weights_take_the_bytes_that_the_configuration_says() {
    let neox = r#""hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2"#;
    let encoder = r#""projection_method": "projection_layer", "hidden_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16"#;
    let lookup = r#""cls": "lookup", "hidden_size": 8, "projection_method": "concat""#.into();
    let cls = format!(r#""cls": "roberta_cls", "n_cls_tokens": 2, {encoder}"#);
    let prefix = r#""cls": "gpt-neo-x", "decoding_strategy": "prefix", "expansion_ratio": 2"#;
    let cross = r#""cls": "t5", "decoding_strategy": "cross_attention", "d_kv": 8, "d_ff": 48"#;
    let block = |embedder: &String, decoder: &str| {
        format!(
            r#"{{ "vocab_size": 40, "embedder": {{ {embedder} }},
                "block_decoder": {{ {neox} }}, "token_decoder": {{ {decoder}, {neox} }} }}"#
        )
    };
    let vanilla = format!(r#"{{ "vocab_size": 40, {neox} }}"#);
    for json in [block(&lookup, prefix), block(&cls, prefix), block(&cls, cross), vanilla] {
        let config = ModelConfig::from_json(&json, "test").unwrap();
        let model = config.init(0, &Device::flex());
        assert_eq!(model.weight_bytes(), config.weight_bytes(Precision::F32), "{json}");
        let half = model.with_precision(Precision::Bf16Weights);
        assert_eq!(half.weight_bytes(), config.weight_bytes(Precision::Bf16Weights), "{json}");
    }
}
