//! Errors of corpora.

use std::path::{Path, PathBuf};

use block_transformer_collectives::CollectiveError;
use block_transformer_files::FileError;
use block_transformer_text::TextError;

use crate::split::Split;

/// The error of a corpus that cannot be obtained, prepared, read or packed.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The tokenizer fails.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Ranks that cannot prepare together.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// A rank that reads other documents than this one, although its files have the same sizes.
    #[error(
        "rank {0} reads other documents than this rank; give all ranks the same files, and do not change them \
         while they are read"
    )]
    OtherDocuments(usize),

    /// The folder to read documents from has no files.
    #[error("{0} contains no file")]
    NoFile(PathBuf),
    /// The path is a pipe, a socket or a device, which cannot be read more than once.
    #[error("{0} is neither a regular file nor a folder")]
    NotAFile(PathBuf),
    /// A file of documents is damaged or has an unknown format.
    #[error("{place}: {reason}")]
    InvalidFile {
        /// The path of the file, followed by the line in a file of one document per line.
        place: String,
        /// The check that failed.
        reason: String,
    },
    /// A document is larger than the limit.
    #[error("{place}: more than {limit} bytes, the limit of a document")]
    LongDocument {
        /// The path of the file, and the line or the number of the document.
        place: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A Parquet file has no column of the given name.
    #[error("{path}: there is no column `{column}`; the columns are {columns}")]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The name that was given.
        column: String,
        /// The names of all columns, separated by commas.
        columns: String,
    },
    /// A pattern of file names is invalid or matches nothing.
    #[error("{pattern}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The reason.
        reason: String,
    },
    /// A file of a prepared corpus is damaged, or belongs to another preparation.
    #[error("{path}: {reason}; prepare the corpus again")]
    DamagedCorpus {
        /// The file.
        path: PathBuf,
        /// The check that failed.
        reason: String,
    },
    /// The folder holds an unfinished preparation of something else.
    #[error(
        "{dir} holds an unfinished preparation that cannot be continued: {reason}; delete the folder, \
         or give another one"
    )]
    OtherPreparation {
        /// The folder.
        dir: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The tokens per shard are too few for the corpus.
    #[error("more than {most} shards of {tokens} tokens each; use larger shards")]
    TooManyShards {
        /// The most shards.
        most: usize,
        /// Tokens per shard.
        tokens: u64,
    },
    /// A document contains an id that the tokenizer does not have.
    #[error(
        "{path}: document {document} has the id {id}, but the tokenizer has {vocab_size} ids; use \
         the tokenizer that produced the ids"
    )]
    UnknownId {
        /// The file of ids.
        path: PathBuf,
        /// Index of the document in the file.
        document: usize,
        /// The id.
        id: u32,
        /// Ids of the tokenizer.
        vocab_size: usize,
    },
    /// A split has no tokens.
    #[error("the corpus {corpus} has no text for the {split} split; add more text")]
    EmptySplit {
        /// Name of the corpus.
        corpus: String,
        /// The split.
        split: Split,
    },
    /// A Megatron pair holds token ids of an unknown tokenizer.
    #[error("{0} holds token ids, not text: its tokenizer file must be given")]
    TokenizerFileNeeded(PathBuf),

    /// A source of a mixture cannot be used.
    #[error("{dir}: {reason}")]
    Share {
        /// The folder of the source.
        dir: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Two sources of a mixture have different tokenizers.
    #[error(
        "{first} and {other} have different tokenizers; prepare them again with the same tokenizer"
    )]
    OtherTokenizer {
        /// The folder of the first source.
        first: PathBuf,
        /// The folder of the other one.
        other: PathBuf,
    },
    /// The window size does not fit the block length.
    #[error(
        "a window of {context} tokens is not a positive multiple of the block length {block_length}"
    )]
    Context {
        /// Tokens per window.
        context: usize,
        /// Tokens per block.
        block_length: usize,
    },
    /// The documents do not fill one window.
    #[error(
        "the documents fill {tokens} positions (their tokens, and the end of each document with its \
         padding to whole blocks), less than one window of {context}; use a smaller window or more text"
    )]
    LessThanOneWindow {
        /// Positions of all documents: tokens, EOS, and padding at the ends of documents.
        tokens: usize,
        /// Tokens per window.
        context: usize,
    },
    /// An epoch has more than 2^32 windows of this many tokens.
    #[error("more than 2^32 windows per epoch of {0} tokens each; use a larger window")]
    TooManyWindows(usize),

    /// The name is neither a path nor a recipe.
    #[error(
        "`{name}` is neither a path nor a recipe; did you mean `{nearest}`? The recipes are {known}"
    )]
    UnknownRecipe {
        /// The name.
        name: String,
        /// The most similar recipe.
        nearest: &'static str,
        /// All recipes, separated by commas.
        known: String,
    },
    /// The corpus or file cannot be downloaded automatically.
    #[error("{name} is not downloaded automatically: {instructions}")]
    ByHand {
        /// Name of the recipe, or path of the file.
        name: String,
        /// How to obtain it.
        instructions: &'static str,
    },
    /// A download failed, or the downloaded file is not the expected one.
    #[error("cannot download {url} to {path}")]
    Download {
        /// Address of the file.
        url: String,
        /// Path of the downloaded file; a file put there is used instead of a download.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file in the download folder is not the expected one.
    #[error(
        "{path} has the SHA-256 {found} instead of {expected}; delete it to download it again, or \
         move it and use it by its path"
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Its SHA-256.
        found: String,
        /// The SHA-256 of the recipe, or of the first download.
        expected: String,
    },
    /// cargo cannot list the dependencies of a workspace.
    #[error(
        "cargo cannot list the dependencies of {manifest} ({reason}); run `cargo fetch` in its \
         folder, which completes Cargo.lock and downloads the sources"
    )]
    CargoMetadata {
        /// The workspace's manifest.
        manifest: PathBuf,
        /// cargo's error.
        reason: String,
    },
    /// There is no Cargo.toml in the current folder or above it.
    #[error("the recipe `dependencies` needs a Cargo.toml in the current folder or above it")]
    NoManifest,
    /// The workspace has none of the packages that the recipe `dependencies` reads.
    #[error("{0} has none of the dependencies that the recipe `dependencies` reads")]
    NoDependency(PathBuf),
}

impl DatasetError {
    /// Whether all ranks get this error, so that none waits for another.
    pub fn is_of_all_ranks(&self) -> bool {
        matches!(self, Self::Collective(error) if error.is_of_all_ranks())
    }

    pub(crate) fn invalid(path: &Path, reason: impl ToString) -> Self {
        Self::InvalidFile { place: path.display().to_string(), reason: reason.to_string() }
    }

    pub(crate) fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::DamagedCorpus { path: path.into(), reason: reason.to_string() }
    }
}
