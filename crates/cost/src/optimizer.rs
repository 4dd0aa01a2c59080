//! Optimizers and the state that they keep.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use block_transformer_family::FamilyConfig;
use serde::{Deserialize, Serialize};

/// The optimizer of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW for all parameters: two moments per element.
    #[default]
    Adamw,
    /// Muon for the matrices inside the stacks, whose state is one velocity per element; AdamW for
    /// embeddings, projections between the parts, LM head, norms and biases.
    Muon,
}

impl OptimizerKind {
    /// Number of elements that the optimizer keeps for a model, scalars not counted.
    pub fn state_elements<C: FamilyConfig>(self, config: &C) -> usize {
        let moments = 2 * config.num_params();
        match self {
            Self::Adamw => moments,
            Self::Muon => moments - config.stacks().hidden_matrix_params(),
        }
    }
}

impl Display for OptimizerKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Adamw => "adamw",
            Self::Muon => "muon",
        })
    }
}

impl FromStr for OptimizerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Adamw, Self::Muon]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| "must be adamw or muon".into())
    }
}
