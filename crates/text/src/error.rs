//! Errors of tokenizers.

use std::path::PathBuf;

use block_transformer_files::FileError;

/// The error of a tokenizer that cannot be read, trained or applied.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a tokenizer.
    #[error("{path} is not a Hugging Face tokenizer.json")]
    NotATokenizer {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: tokenizers::Error,
    },
    /// A special token has a different id from the one that this project's models use.
    #[error(
        "{path}: {token} has {}; use a tokenizer that gives it id {expected}, as the GPT-NeoX \
         tokenizer does, or train one", .found.map_or("no id".into(), |id| format!("id {id}"))
    )]
    SpecialToken {
        /// The tokenizer file.
        path: PathBuf,
        /// The text of the token.
        token: &'static str,
        /// The id that is required.
        expected: u32,
        /// The id in the file; `None` if the file lacks the token.
        found: Option<u32>,
    },
    /// Two tokens have the same id.
    #[error("{path}: the tokens {tokens} have the same id {id}")]
    SameId {
        /// The tokenizer file.
        path: PathBuf,
        /// The id.
        id: u32,
        /// Two tokens with the id.
        tokens: String,
    },
    /// An id is larger than any model's vocabulary.
    #[error("{path}: the highest id is {highest}; at most {most} is supported")]
    HighId {
        /// The tokenizer file.
        path: PathBuf,
        /// The highest id.
        highest: u32,
        /// The limit.
        most: u32,
    },
    /// The vocabulary to train is smaller than the alphabet.
    #[error("a vocabulary of {0} ids is too small: 256 bytes and 2 special tokens need 258")]
    VocabularyTooSmall(usize),
    /// A vocabulary that bytes and their pairs do not have.
    #[error("a vocabulary of {vocab_size} ids: bytes and pairs of bytes have from 258 to {most}")]
    PairVocabulary {
        /// The ids that were asked for.
        vocab_size: usize,
        /// The largest number of ids.
        most: usize,
    },
    /// The text has a run of whitespace that is too long for the tokenizer to split exactly.
    #[error(
        "more than {limit} whitespace characters in a row before byte {byte} of a document: too \
         many to tokenize exactly; shorten the run"
    )]
    Whitespace {
        /// The longest run that is accepted, in characters.
        limit: usize,
        /// The byte offset at which the limit is exceeded.
        byte: usize,
    },
    /// The `tokenizers` library failed.
    #[error("the tokenizer failed")]
    Tokenizer(#[source] tokenizers::Error),
}
