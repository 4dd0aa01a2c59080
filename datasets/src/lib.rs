//! Corpus recipes: where a corpus comes from, what it must hash to, and its licence.
//!
//! The files of evaluation tasks have recipes of their own ([`task_file`]).
//!
//! A corpus is split by document when it is prepared (`block_transformer_text::prepare`).

mod dependencies;
mod download;
mod recipes;
mod tasks;

use std::path::PathBuf;

pub use dependencies::dependencies;
pub use download::{Download, fetch};
pub use recipes::{Recipe, recipes, resolve};
pub use tasks::{TaskFile, TaskSource, task_file, task_files};

/// A corpus that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// Neither a recipe nor a path.
    #[error(
        "--corpus {name}: neither a path nor a recipe; did you mean `{nearest}`? Recipes: {known}"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The recipe most like it.
        nearest: String,
        /// Every recipe.
        known: String,
    },
    /// The network or the server refused.
    #[error(
        "{url}: {reason}. Download it elsewhere to {path}, or give --corpus a path of your own"
    )]
    Download {
        /// What was fetched.
        url: String,
        /// Why it failed.
        reason: String,
        /// Where the file is looked for.
        path: PathBuf,
    },
    /// The file is not the one the recipe means.
    #[error("{path}: SHA-256 is {found}, and should be {expected}; {remedy}")]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Its checksum.
        found: String,
        /// The recipe's, or that of the first download.
        expected: String,
        /// What to do.
        remedy: String,
    },
    /// Too large to be fetched without being asked.
    #[error("corpus `{name}`: {reason}")]
    OnRequest {
        /// The recipe.
        name: &'static str,
        /// Why, and how to get it.
        reason: &'static str,
    },
    /// A file that nothing here can fetch.
    #[error("{path}: not there, and not fetched: {how}")]
    NotFetched {
        /// Where it is looked for.
        path: PathBuf,
        /// How to get it.
        how: &'static str,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// cargo could not say where the dependencies are.
    #[error("corpus `dependencies`: {0}; give --corpus a path instead")]
    Cargo(String),
    /// The text could not be opened.
    #[error(transparent)]
    Text(#[from] block_transformer_text::TextError),
}
