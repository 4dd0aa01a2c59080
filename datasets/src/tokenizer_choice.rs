//! The choice of a tokenizer for a corpus.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The tokenizer to prepare a corpus with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerChoice {
    /// One id per byte.
    Bytes,
    /// A BPE with this many ids, trained on the corpus.
    Bpe(usize),
    /// A `tokenizer.json`.
    File(PathBuf),
}
