//! What a family says about the shape of a model.

use std::fmt::Debug;

use crate::names::PublishedNames;
use crate::precision::Precision;
use crate::stacks::Stacks;

/// Configuration of the models of a family.
pub trait FamilyConfig: PublishedNames + Clone + Debug + PartialEq + Send + Sync + 'static {
    /// Name of the family: "block" or "vanilla" for those of the paper.
    fn family(&self) -> &'static str;

    /// Tokens per block; 1 for models without blocks.
    fn block_length(&self) -> usize;

    /// Rows of the token tables and columns of the LM head.
    fn vocab_size(&self) -> usize;

    /// The same configuration over `vocab_size` token ids.
    fn with_vocab_size(self, vocab_size: usize) -> Self;

    /// Context the model is trained with, in tokens.
    fn max_position_embeddings(&self) -> usize;

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Names the first key whose value does not fit.
    fn check(&self) -> Result<(), InvalidConfig>;

    /// All parameters.
    fn num_params(&self) -> usize;

    /// Parameters outside the token tables and the LM head.
    fn num_params_non_embedding(&self) -> usize;

    /// Parameters in the matrices of linear layers. An LM head counts unless it is a token table.
    fn num_matrix_params(&self) -> usize;

    /// Shapes of the model's layer stacks, for the cost model and memory limits.
    fn stacks(&self) -> Stacks;

    /// Bytes of the parameters stored in `precision`.
    fn weight_bytes(&self, precision: Precision) -> u64 {
        let (all, in_matrices) = (self.num_params() as u64, self.num_matrix_params() as u64);
        (all - in_matrices) * precision.values().bytes() as u64
            + in_matrices * precision.matrices().bytes() as u64
    }

    /// Bytes of keys and values per token of context, at `bytes` per value. The cache of a token
    /// decoder adds nothing: it is reused for every block.
    fn kv_bytes_per_token(&self, bytes: usize) -> f64 {
        let stacks = self.stacks();
        (stacks.context.kv_values() * stacks.embeddings_per_block * bytes) as f64
            / self.block_length() as f64
    }
}

/// A configuration whose sizes do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct InvalidConfig {
    /// The key with its path, such as `token_decoder.expansion_ratio`.
    pub key: String,
    /// What is wrong with its value.
    pub reason: String,
}

impl InvalidConfig {
    /// An error about `key`.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }

    /// The error that a layer's check gives as `key: reason`.
    pub fn from_text(text: String) -> Self {
        match text.split_once(": ") {
            Some((key, reason)) => Self::new(key, reason),
            None => Self::new("model", text),
        }
    }
}
