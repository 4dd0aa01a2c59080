//! The place of a request's tokens in the blocks of a model.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The place of a request's tokens in the blocks of a block model. For a model without blocks, both are the
/// same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alignment {
    /// As in generation: the context is padded on the left to end at a block boundary, and the continuation
    /// starts a block.
    #[default]
    Generation,
    /// As in the published evaluation (`BlockTransformerWrapper` in `block_transformer_pad.py`): the first
    /// block has padding at all positions but the last, which holds the first token of the context. The
    /// continuation starts wherever the context ends, and a block can hold tokens of both.
    Published,
}

impl Alignment {
    /// Number of padding positions before a context of `context` tokens, with blocks of `l` tokens.
    pub(super) fn padding(self, context: usize, l: usize) -> usize {
        match self {
            Self::Generation => context.next_multiple_of(l) - context,
            Self::Published => l - 1,
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Published => "published",
        }
    }
}

impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Alignment {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Generation, Self::Published];
        let found = all.into_iter().find(|alignment| alignment.name() == name);
        found.ok_or_else(|| format!("no alignment is called {name:?}; use generation or published"))
    }
}
