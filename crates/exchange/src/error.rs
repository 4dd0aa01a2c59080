//! Models that cannot be found, read or written.

use std::path::PathBuf;

use block_transformer_files::FileError;
use block_transformer_text::TextError;
use block_transformer_weights::WeightsError;
use block_transformer_zoo::ConfigError;

/// A model of another program that cannot be found, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer cannot be written.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A configuration describes no model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The text is neither a path, nor a published name, nor an id of the hub.
    #[error(
        "{given}: there is no such file or folder, no published weights have this name (did you mean `{nearest}`?), \
         and an id of the hub has the form owner/name or owner/name@revision"
    )]
    Unknown {
        /// The text.
        given: String,
        /// The most similar published name.
        nearest: String,
    },
    /// Published weights that no program can fetch.
    #[error(
        "{name}: the authors share these weights as a folder without a stable address; open {source_page}, \
         download the folder {folder} with its model.safetensors, copy its training configuration {folder}.yaml \
         beside it, and import the folder"
    )]
    ByHand {
        /// The name.
        name: String,
        /// The publisher's page.
        source_page: String,
        /// The folder to download.
        folder: String,
    },
    /// A folder without a weights file.
    #[error(
        "{0} has no weights: it has none of model.safetensors.index.json, model.safetensors, \
         pytorch_model.bin.index.json and pytorch_model.bin, and not exactly one file that ends in .safetensors, \
         .bin, .pt or .pth; if it has several, give one of them"
    )]
    NoWeights(PathBuf),
    /// A configuration file has a value that the models here cannot have, or lacks a key.
    #[error("{path}: {key}: {reason}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The reason.
        reason: String,
    },
    /// A configuration file is not of its format.
    #[error("{path} is not a readable configuration: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The hub could not be asked, or does not have the file.
    #[error("{id}: the hub did not give {what}: {reason}")]
    Hub {
        /// The repository.
        id: String,
        /// The file, or "the list of its files".
        what: String,
        /// The cause.
        reason: String,
    },
    /// The cache of the hub does not have the model.
    #[error("{id}: not in the cache {cache}; without --offline, it is fetched")]
    NotCached {
        /// The repository with its revision.
        id: String,
        /// The folder of the cache.
        cache: PathBuf,
    },
    /// A file differs from what its publisher states.
    #[error(
        "{path} has the SHA-256 {found}, but {expected} is published; delete the file and fetch it again"
    )]
    Digest {
        /// The file.
        path: PathBuf,
        /// Its SHA-256.
        found: String,
        /// The published SHA-256.
        expected: String,
    },
}
