//! The origin of weights.

use serde::{Deserialize, Serialize};

/// The weights that a model was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// How the model was made: `import`, `train` or `uptrain`.
    pub made_by: String,
    /// Path or id of the source, as it was given; for a repository on the hub with its commit.
    pub source: String,
    /// SHA-256 of the weights file of the source. For several files: the SHA-256 of the text that has the
    /// SHA-256 of each file as a line, in the order of their names.
    pub sha256: String,
    /// Optimizer steps of the source, where they are known.
    pub step: Option<u64>,
    /// Tokens that the source was trained on, where they are known.
    pub tokens: Option<u64>,
    /// Last recorded validation loss of the source, in nats per token.
    pub validation_loss: Option<f64>,
    /// The origin of the source, where it is known.
    pub parent: Option<Box<Self>>,
}

impl Lineage {
    /// This origin, that of its source, and so on.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |lineage| lineage.parent.as_deref())
    }
}
