//! Shape of a model; JSON field names are those of the published configuration files.

use block_transformer_layers::{Init, neox::NeoXConfig};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::GptNeoX;

/// Configuration of [`GptNeoX`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GptNeoXConfig {
    /// Rows of the token embedding and of the LM head.
    pub vocab_size: usize,
    /// Context the model is trained with, in tokens. Rotary positions have no hard limit.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// The decoder stack.
    #[serde(flatten)]
    pub stack: NeoXConfig,
}

fn default_positions() -> usize {
    2048
}

impl GptNeoXConfig {
    /// What is wrong with the configuration, if anything.
    pub fn check(&self) -> Result<(), String> {
        if self.vocab_size < 2 {
            return Err("vocab_size: must be at least 2".into());
        }
        self.stack.check("gpt-neox")
    }

    /// A model with weights from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> GptNeoX {
        GptNeoX::new(self, &Init::new(seed, device))
    }

    /// Parameters outside the token embedding and the LM head.
    pub fn num_params_non_embedding(&self) -> usize {
        self.stack.num_params()
    }

    /// All parameters.
    pub fn num_params(&self) -> usize {
        self.num_params_non_embedding() + 2 * self.vocab_size * self.stack.hidden_size
    }

    /// Parameters in the matrices of linear layers, the LM head's included.
    pub fn num_matrix_params(&self) -> usize {
        self.stack.num_matrix_params() + self.vocab_size * self.stack.hidden_size
    }

    /// Bytes of keys and values one token of context takes, at `bytes` a number.
    pub fn kv_bytes_per_token(&self, bytes: usize) -> f64 {
        self.stack.kv_bytes(bytes) as f64
    }
}
