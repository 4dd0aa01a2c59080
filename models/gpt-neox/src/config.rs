//! Shape of a model. JSON field names are those of the published configuration files.

use block_transformer_family::{FamilyConfig, InvalidConfig, Stacks, check_ids};
use block_transformer_layers::neox::NeoXConfig;
use serde::{Deserialize, Serialize};

/// Configuration of [`GptNeoX`](crate::GptNeoX).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GptNeoXConfig {
    /// Rows of the token embedding and columns of the LM head.
    pub vocab_size: usize,
    /// Context that the model is trained with, in tokens. Rotary positions have no hard limit.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// The decoder stack.
    #[serde(flatten)]
    pub stack: NeoXConfig,
}

fn default_positions() -> usize {
    2048
}

impl FamilyConfig for GptNeoXConfig {
    fn family(&self) -> &'static str {
        "vanilla"
    }

    fn with_vocab_size(self, vocab_size: usize) -> Self {
        Self { vocab_size, ..self }
    }

    fn max_position_embeddings(&self) -> usize {
        self.max_position_embeddings
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        check_ids(self.vocab_size, self.max_position_embeddings)?;
        self.stack.check()
    }

    fn num_params(&self) -> usize {
        self.num_params_non_embedding() + 2 * self.vocab_size * self.stack.hidden_size
    }

    fn num_params_non_embedding(&self) -> usize {
        self.stack.num_params()
    }

    fn stacks(&self) -> Stacks {
        Stacks {
            block_length: 1,
            embeddings_per_block: 1,
            vocab_size: self.vocab_size,
            context: (&self.stack).into(),
            embedder: None,
            token: None,
        }
    }
}
