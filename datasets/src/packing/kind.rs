//! The kinds of windows.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How documents become windows. In both kinds an EOS ends each document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Documents start at block boundaries: each starts with a random padding of 0 to
    /// `block_length - 1` and is padded at its end to a whole block, as in the published training.
    /// Each epoch shuffles the documents and the windows.
    #[default]
    Documents,
    /// Documents follow one another in their order, without padding, and windows are cut from this
    /// stream of tokens. They are the same for every block length. Each epoch starts the first window
    /// at another token, and shuffles the windows.
    Contiguous,
}

impl Display for WindowKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Documents => "documents",
            Self::Contiguous => "contiguous",
        })
    }
}

impl FromStr for WindowKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Documents, Self::Contiguous]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| "must be documents or contiguous".into())
    }
}
