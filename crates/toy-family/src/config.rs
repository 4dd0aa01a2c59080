//! The shape of a bigram model.

use block_transformer_family::{
    FamilyConfig, InvalidConfig, PublishedNames, StackShape, Stacks, check_ids,
};

/// Configuration of [`Bigram`](crate::Bigram).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigramConfig {
    /// Rows of the token table and columns of the LM head.
    pub vocab_size: usize,
    /// Width of the token table.
    pub width: usize,
}

impl FamilyConfig for BigramConfig {
    fn family(&self) -> &'static str {
        "bigram"
    }

    fn with_vocab_size(self, vocab_size: usize) -> Self {
        Self { vocab_size, ..self }
    }

    fn max_position_embeddings(&self) -> usize {
        64
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        check_ids(self.vocab_size, self.max_position_embeddings())?;
        InvalidConfig::check_size("width", self.width, InvalidConfig::MAX_WIDTH)
    }

    fn num_params(&self) -> usize {
        2 * self.vocab_size * self.width
    }

    fn num_params_non_embedding(&self) -> usize {
        0
    }

    fn stacks(&self) -> Stacks {
        Stacks {
            block_length: 1,
            embeddings_per_block: 1,
            vocab_size: self.vocab_size,
            context: StackShape::with_self_attention(0, self.width, 1, 0),
            embedder: None,
            token: None,
        }
    }
}

/// In published files, parameters have their module paths as names.
impl PublishedNames for BigramConfig {
    fn published_names(&self, path: &str) -> Vec<String> {
        vec![path.to_string()]
    }
}
