//! Prepared corpora: a folder with a tokenizer and tokenized documents.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_transformer_files::FileError;
use block_transformer_text::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::documents::Documents;
use crate::error::DatasetError;
use crate::megatron::MegatronFile;
use crate::megatron_split::MegatronSplit;
use crate::packing::{Order, Packing, WindowKind};
use crate::shards::{INDEX, ShardIndex, ShardedDocuments, read_json, write_json};
use crate::split::Split;
use crate::token_file::TokenFile;

const INFO: &str = "corpus.json";
const TOKENIZER: &str = "tokenizer.json";

/// The largest `corpus.json` in bytes.
const MAX_INFO: u64 = 4 << 20;

/// Sizes of one split of a prepared corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitInfo {
    /// Documents.
    pub documents: u64,
    /// Tokens, without EOS.
    pub tokens: u64,
    /// Bytes of text; 0 if the corpus was prepared from ids.
    pub bytes: u64,
}

/// The content of `corpus.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorpusInfo {
    /// Name of the corpus.
    pub name: String,
    /// Fingerprint of the tokenizer.
    pub tokenizer: u32,
    /// Training documents.
    pub train: SplitInfo,
    /// Validation documents.
    pub validation: SplitInfo,
    /// Loss on the validation documents, in nats per token, of a model that knows only the
    /// frequencies of the tokens in the training documents (each count increased by one). A model
    /// with a lower loss has learned more than frequencies.
    pub frequency_loss: f64,
    /// The Megatron pair that holds the ids; `None` if they are in the token files of the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub megatron: Option<MegatronPair>,
    /// Whether the ids are in several token files, which `index.json` lists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sharded: bool,
    /// How the order of windows is found. Prepared folders without it are older.
    #[serde(default, skip_serializing_if = "is_listed")]
    pub order: Order,
}

fn is_listed(order: &Order) -> bool {
    *order == Order::Listed
}

/// The Megatron pair that holds the ids of a prepared corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MegatronPair {
    /// Absolute path of the `.idx` file.
    pub path: PathBuf,
    /// Share of the documents that is held out for validation.
    pub validation: f64,
}

impl MegatronPair {
    /// Opens the documents of a split.
    ///
    /// # Errors
    /// If a file of the pair cannot be read or has another format, the index refers to bytes or
    /// sequences that do not exist, or the share is not above 0 and at most 1.
    pub fn split(&self, split: Split) -> Result<Arc<dyn Documents>, DatasetError> {
        if !(self.validation > 0.0 && self.validation <= 1.0) {
            let reason = format!(
                "the share {} for validation, from {INFO}, is not above 0 and at most 1",
                self.validation
            );
            return Err(DatasetError::damaged(&self.path, reason));
        }
        let pair = Arc::new(MegatronFile::open(&self.path)?);
        Ok(Arc::new(MegatronSplit::new(pair, self.validation, split)))
    }
}

/// A prepared folder: `tokenizer.json`, `corpus.json`, and `train.tok` and `validation.tok` unless
/// the ids are in a Megatron pair. A large corpus has more token files and an `index.json`.
#[derive(Clone, Debug)]
pub struct PreparedCorpus {
    /// The folder.
    pub dir: PathBuf,
    /// Its description.
    pub info: CorpusInfo,
}

impl PreparedCorpus {
    /// Returns whether `dir` is a prepared corpus.
    pub fn exists(dir: &Path) -> bool {
        dir.join(INFO).exists()
    }

    /// Opens a prepared folder.
    ///
    /// # Errors
    /// If its `corpus.json` cannot be read.
    pub fn open(dir: &Path) -> Result<Self, DatasetError> {
        let path = dir.join(INFO);
        let info = read_json(&path, MAX_INFO, "the description of a prepared corpus")?;
        Ok(Self { dir: dir.into(), info })
    }

    /// Starts a preparation in `dir`: creates the folder, and removes the `corpus.json` of an
    /// earlier preparation. The folder is then not a prepared corpus until [`create`](Self::create)
    /// is called.
    pub(crate) fn begin(dir: &Path) -> Result<(), DatasetError> {
        std::fs::create_dir_all(dir).map_err(FileError::write(dir))?;
        let path = dir.join(INFO);
        if path.exists() {
            std::fs::remove_file(&path).map_err(FileError::write(&path))?;
        }
        Ok(())
    }

    /// Ends a preparation in `dir`: writes the tokenizer, then `corpus.json`.
    pub(crate) fn create(
        dir: &Path,
        tokenizer: &Tokenizer,
        info: CorpusInfo,
    ) -> Result<Self, DatasetError> {
        tokenizer.save(&dir.join(TOKENIZER))?;
        write_json(&dir.join(INFO), &info)?;
        Ok(Self { dir: dir.into(), info })
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// If its file is damaged or was replaced by another tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer, DatasetError> {
        let path = self.dir.join(TOKENIZER);
        let tokenizer = Tokenizer::load(&path)?;
        if tokenizer.fingerprint()? != self.info.tokenizer {
            let reason = "it is another tokenizer than that of the corpus";
            return Err(DatasetError::damaged(&path, reason));
        }
        Ok(tokenizer)
    }

    /// The path of the token file of `split` in `dir`.
    pub(crate) fn token_file(dir: &Path, split: Split) -> PathBuf {
        dir.join(format!("{split}.tok"))
    }

    /// Opens the documents of a split.
    ///
    /// # Errors
    /// If their file is damaged, or belongs to another preparation or tokenizer.
    pub fn split(&self, split: Split) -> Result<Arc<dyn Documents>, DatasetError> {
        let (path, documents): (PathBuf, Arc<dyn Documents>) = match &self.info.megatron {
            Some(pair) => (pair.path.clone(), pair.split(split)?),
            None if self.info.sharded => {
                let index = ShardIndex::read(&self.dir)?;
                let tokenizer = self.info.tokenizer;
                let shards = ShardedDocuments::open(&self.dir, &index, split, tokenizer)?;
                (self.dir.join(INDEX), Arc::new(shards))
            }
            None => {
                let path = Self::token_file(&self.dir, split);
                let file = TokenFile::open(&path)?;
                file.check_tokenizer(&path, self.info.tokenizer)?;
                (path, Arc::new(file))
            }
        };
        let recorded = match split {
            Split::Train => &self.info.train,
            Split::Validation => &self.info.validation,
        };
        let (found, tokens) = (documents.len() as u64, documents.total_tokens() as u64);
        if (found, tokens) != (recorded.documents, recorded.tokens) {
            let recorded = format!("{} of {}", recorded.documents, recorded.tokens);
            let found = format!("{found} documents of {tokens} tokens");
            let reason = format!("{found}, but corpus.json records {recorded}");
            return Err(DatasetError::damaged(&path, reason));
        }
        Ok(documents)
    }

    /// Packs the documents of a split into windows of a kind, in the order of the corpus; see
    /// [`Packing::new`].
    ///
    /// # Errors
    /// Those of [`split`](Self::split) and [`Packing::new`].
    pub fn packing(
        &self,
        kind: WindowKind,
        split: Split,
        block_length: usize,
        context: usize,
        seed: Option<u64>,
    ) -> Result<Packing, DatasetError> {
        let kind = (kind, self.info.order);
        Packing::of_kind(kind, self.split(split)?, block_length, context, seed)
    }
}
