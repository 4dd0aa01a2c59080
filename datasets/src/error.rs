//! Errors of corpora.

use std::path::PathBuf;

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

    /// The folder to read documents from has no files.
    #[error("{0} contains no file")]
    NoFile(PathBuf),
    /// A text is not UTF-8.
    #[error("{path}: invalid UTF-8 at byte {byte}; convert the file to UTF-8")]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first invalid byte in the file.
        byte: usize,
    },
    /// A line of a JSONL file is not an object with a `text`.
    #[error(
        "{path}:{line}: column {column}: {reason}; each line must be an object with a \"text\""
    )]
    JsonLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        /// The JSON parser's message.
        reason: String,
    },

    /// `corpus.json` of a prepared corpus does not parse.
    #[error("{path} does not describe a prepared corpus; prepare the corpus again")]
    CorpusInfo {
        /// The file.
        path: PathBuf,
        /// The JSON parser's error.
        source: serde_json::Error,
    },
    /// A token file is damaged or is not a token file.
    #[error("{path}: {problem}; prepare the corpus again")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The check that failed.
        problem: String,
    },
    /// A file of a Megatron pair is damaged or has an unknown format.
    #[error("{path}: {problem}")]
    Megatron {
        /// The file.
        path: PathBuf,
        /// The check that failed.
        problem: String,
    },
    /// A file of a prepared corpus belongs to a different tokenizer from the one that `corpus.json`
    /// records.
    #[error("{0} belongs to another tokenizer than the corpus; prepare the corpus again")]
    OtherTokenizer(PathBuf),
    /// The documents of a split are not those that `corpus.json` records.
    #[error(
        "{path} holds {} documents of {} tokens, but corpus.json records {} of {}; prepare the \
         corpus again", .found.0, .found.1, .recorded.0, .recorded.1
    )]
    OtherDocuments {
        /// The token file or Megatron index.
        path: PathBuf,
        /// Documents and tokens in the file.
        found: (u64, u64),
        /// Documents and tokens in `corpus.json`.
        recorded: (u64, u64),
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
    /// The share of documents to hold out is not between 0 and 1.
    #[error("the validation share {0} is not between 0 and 1")]
    ValidationShare(f64),
    /// A Megatron pair holds token ids of an unknown tokenizer.
    #[error("{0} holds token ids, not text: its tokenizer file must be given")]
    TokenizerFileNeeded(PathBuf),

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
        "the documents hold {tokens} tokens, less than one window of {context}; use a smaller \
         window or more text"
    )]
    LessThanOneWindow {
        /// Tokens of all documents, including EOS and padding at the ends of documents.
        tokens: usize,
        /// Tokens per window.
        context: usize,
    },
    /// An epoch has more than 2^32 windows.
    #[error("more than 2^32 windows per epoch of {context} tokens each; use a larger window")]
    TooManyWindows {
        /// Tokens per window.
        context: usize,
    },

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
    /// A download failed.
    #[error("cannot download {url} to {path}")]
    Download {
        /// Address of the file.
        url: String,
        /// Path of the downloaded file; a file put there is used instead of a download.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A downloaded file is not the expected one; it was removed.
    #[error("the file at {url} has the SHA-256 {found} instead of {expected}; try again")]
    DownloadChecksum {
        /// Address of the file.
        url: String,
        /// Its SHA-256.
        found: String,
        /// The recipe's SHA-256.
        expected: String,
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
    #[error("`cargo metadata --locked` failed for {manifest}; run `cargo fetch --locked` there")]
    CargoMetadata {
        /// The workspace's manifest.
        manifest: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no Cargo.toml in the current folder or above it.
    #[error("the recipe `dependencies` needs a Cargo.toml in the current folder or above it")]
    NoManifest,
    /// The workspace has none of the packages that the recipe `dependencies` reads.
    #[error("{0} has none of the dependencies that the recipe `dependencies` reads")]
    NoDependency(PathBuf),
}
