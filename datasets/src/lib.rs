//! Corpora: from text to training windows.
//!
//! A [`DocumentSource`] reads documents. [`prepare`] tokenizes them into the token files of a
//! [`PreparedCorpus`], split into training and validation documents. [`Packing`] cuts the documents
//! of a split into windows.
//!
//! With the feature `download`, `prepare_corpus` does all of this for a path or the name of a
//! recipe. It also accepts a Megatron `.idx`/`.bin` pair, which is not copied. `task_file` provides
//! the files of evaluation tasks ([`tasks`]). With the feature `burn-dataset`, a [`Packing`] is a
//! `Dataset` of burn.

#[cfg(feature = "download")]
mod cache_name;
mod corpus;
mod counts;
#[cfg(feature = "download")]
mod dependencies;
mod documents;
#[cfg(feature = "download")]
mod download;
mod error;
#[cfg(feature = "download")]
mod folder_lock;
mod megatron;
mod megatron_split;
mod mixture;
mod packing;
mod prepare;
#[cfg(feature = "download")]
mod prepare_corpus;
#[cfg(feature = "download")]
mod prepare_megatron;
#[cfg(feature = "download")]
mod recipes;
mod shards;
mod share;
mod source;
mod split;
pub mod tasks;
mod token_file;
mod tokenizer_choice;

pub use corpus::{CorpusInfo, MegatronPair, PreparedCorpus, SplitInfo};
#[cfg(feature = "download")]
pub use dependencies::inside_project;
pub use documents::Documents;
pub use error::DatasetError;
pub use mixture::{MixedWindows, Mixture};
pub use packing::{Order, Packing, Window, WindowKind};
pub use prepare::{Preparation, Progress, SHARD_TOKENS, prepare};
#[cfg(feature = "download")]
pub use prepare_corpus::{CorpusRequest, prepare_corpus, prepare_corpus_on};
#[cfg(feature = "download")]
pub use recipes::{resolve, task_file};
pub use share::Share;
pub use source::{DocumentSource, ReadOptions};
pub use split::Split;
pub use tokenizer_choice::TokenizerChoice;
