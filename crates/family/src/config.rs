//! The interface of a family's configuration.

use std::fmt::Debug;

use block_transformer_layers::InvalidConfig;

use crate::names::PublishedNames;
use crate::precision::{FloatFormat, Precision};
use crate::stacks::Stacks;

/// Name of the family of Block Transformers. A member with a `block_length` of 1 still has blocks: it
/// is not a baseline.
pub const BLOCK_FAMILY: &str = "block";

/// Configuration of the models of a family.
pub trait FamilyConfig: PublishedNames + Clone + Debug + PartialEq + Send + Sync + 'static {
    /// Name of the family: [`BLOCK_FAMILY`] or "vanilla" for those of the paper.
    fn family(&self) -> &'static str;

    /// The same configuration over `vocab_size` token ids.
    fn with_vocab_size(self, vocab_size: usize) -> Self;

    /// Context that the model is trained with, in tokens.
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

    /// Shapes of the model's layer stacks, for the cost model and memory limits.
    fn stacks(&self) -> Stacks;

    /// Tokens per block; 1 for models without blocks.
    fn block_length(&self) -> usize {
        self.stacks().block_length
    }

    /// Rows of the token tables and columns of the LM head.
    fn vocab_size(&self) -> usize {
        self.stacks().vocab_size
    }

    /// Bytes of the parameters when they are stored in `precision`. The scales of integers are not counted: 4
    /// bytes per column of a matrix.
    fn weight_bytes(&self, precision: Precision) -> u64 {
        let (all, in_matrices) = (self.num_params() as u64, self.stacks().matrix_params() as u64);
        (all - in_matrices) * FloatFormat::F32.bytes() as u64
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

/// Checks the vocabulary and the trained context of a model.
///
/// # Errors
/// When there are fewer than two ids or too many, or the context is 0 or too large.
pub fn check_ids(vocab_size: usize, max_position_embeddings: usize) -> Result<(), InvalidConfig> {
    if vocab_size < 2 {
        return Err(InvalidConfig::new("vocab_size", format!("{vocab_size} must be at least 2")));
    }
    InvalidConfig::check_size("vocab_size", vocab_size, 1 << 24)?;
    InvalidConfig::check_size("max_position_embeddings", max_position_embeddings, 1 << 30)
}

/// The data of a family in a registry of families. The registry names the types of the family
/// separately.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// A key that only the family's configuration tables have.
    pub key: &'static str,
    /// The keys of every configuration table, by its path (empty for the outermost).
    pub keys: &'static [(&'static str, &'static [&'static [&'static str]])],
    /// The presets of the family, as TOML.
    pub presets: &'static str,
    /// The published weights of the family, as TOML; empty if there are none.
    pub weights: &'static str,
}
