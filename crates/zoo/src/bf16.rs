//! Matrices in half the memory.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};

use crate::LanguageModel;

impl LanguageModel {
    /// The model with the matrices of its linear layers in bf16, for inference: half the memory
    /// that a decoded token reads. Embeddings, norms, biases, a head tied to an embedding and all
    /// activations stay f32, in which everything is computed. burn's ndarray backend has no bf16.
    pub fn with_bf16_matrices(self) -> Self {
        self.map(&mut Halve::default())
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
    use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

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
}
