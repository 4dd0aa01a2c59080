//! Matrices in half the memory.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use crate::LanguageModel;

impl LanguageModel {
    /// The model with the matrices of its linear layers in bf16, for inference: half the memory
    /// that a decoded token reads. Embeddings, norms, biases, a head tied to an embedding and all
    /// activations stay f32, in which everything is computed. burn's ndarray backend has no bf16.
    pub fn with_bf16_matrices(self) -> Self {
        self.map(&mut Halve::default())
    }

    /// Bytes of the parameters as they are.
    pub fn weight_bytes(&self) -> u64 {
        let mut bytes = Bytes(0);
        self.visit(&mut bytes);
        bytes.0
    }
}

struct Bytes(u64);

impl ModuleVisitor for Bytes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        self.0 += (tensor.shape().num_elements() * tensor.dtype().size()) as u64;
    }
}

/// Knows whether it stands in a linear layer.
#[derive(Default)]
struct Halve {
    linear: Vec<bool>,
}

impl ModuleMapper for Halve {
    fn enter_module(&mut self, _: &str, container: &str) {
        self.linear.push(matches!(container, "Struct:Linear" | "Struct:BlockConv"));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.linear.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // a field's own entry lies above the layer's
        let inside = self.linear.iter().rev().take(2).any(|&linear| linear);
        if D == 2 && inside { param.map(|tensor| tensor.cast(DType::BF16)) } else { param }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

    use crate::{ModelConfig, TokenBatch, preset};

    /// The mean loss of a random model of `config` in f32 and with bf16 matrices.
    fn losses(config: &ModelConfig, device: &Device) -> [f32; 2] {
        let block_length = config.block_length();
        let ids: Vec<i64> = (0..64).map(|i| 2 + (i * 37) % 50).collect();
        let batch = TokenBatch {
            ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 32]), device),
            real: Tensor::<2, Bool>::from_data(TensorData::new(vec![true; 64], [2, 32]), device),
            block_length: block_length.max(1),
        };
        let model = config.init(3, device);
        let half = model.clone().with_bf16_matrices();
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
            assert_eq!(model.weight_bytes(), config.weight_bytes(DType::F32), "{json}");
            let half = model.with_bf16_matrices();
            assert_eq!(half.weight_bytes(), config.weight_bytes(DType::BF16), "{json}");
        }
    }
}
