//! The shards of a prepared corpus: token files one after the other, and the index that lists them.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use block_transformer_files::{FileError, read_text_up_to};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::documents::Documents;
use crate::error::DatasetError;
use crate::split::Split;
use crate::token_file::TokenFile;

/// The name of the index.
pub(crate) const INDEX: &str = "index.json";

/// The version of the format of the index.
const VERSION: u32 = 1;

/// The most shards of a corpus. All of them are mapped into memory, and Linux allows a process about
/// 65,000 maps.
pub(crate) const MOST_SHARDS: usize = 16_384;

/// The largest index in bytes. One of [`MOST_SHARDS`] shards is smaller.
const MAX_INDEX: u64 = 16 << 20;

/// A token file of a sharded corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shard {
    /// The name of the file, in the folder of the index.
    pub(crate) file: String,
    pub(crate) documents: u64,
    /// Tokens, without EOS.
    pub(crate) tokens: u64,
    /// The size of the file.
    pub(crate) bytes: u64,
}

/// The content of `index.json`: the shards of each split, in the order of their documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShardIndex {
    version: u32,
    pub(crate) train: Vec<Shard>,
    pub(crate) validation: Vec<Shard>,
}

impl Default for ShardIndex {
    fn default() -> Self {
        Self { version: VERSION, train: Vec::new(), validation: Vec::new() }
    }
}

impl ShardIndex {
    pub(crate) fn of(&self, split: Split) -> &[Shard] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }

    pub(crate) fn push(&mut self, split: Split, shard: Shard) {
        match split {
            Split::Train => self.train.push(shard),
            Split::Validation => self.validation.push(shard),
        }
    }

    /// Reads the index of `dir` and checks it and the sizes of its files.
    pub(crate) fn read(dir: &Path) -> Result<Self, DatasetError> {
        let path = dir.join(INDEX);
        let index: Self = read_json(&path, MAX_INDEX, "an index of shards")?;
        index.check(dir, &path)?;
        Ok(index)
    }

    /// Writes the index of `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), DatasetError> {
        write_json(&dir.join(INDEX), self)
    }

    /// Checks the index, which is in the file `path`, and the names and sizes of its files in `dir`.
    pub(crate) fn check(&self, dir: &Path, path: &Path) -> Result<(), DatasetError> {
        let damaged = |reason: String| DatasetError::damaged(path, reason);
        if self.version != VERSION {
            let version = self.version;
            return Err(damaged(format!("version {version}; only {VERSION} is supported")));
        }
        let folder = dir.canonicalize().map_err(FileError::read(dir))?;
        for split in Split::ALL {
            let shards = self.of(split);
            if shards.len() > MOST_SHARDS {
                let count = shards.len();
                return Err(damaged(format!("{split}: {count} shards; at most {MOST_SHARDS}")));
            }
            let mut tokens = 0_u64;
            for (number, shard) in shards.iter().enumerate() {
                let key = |key: &str| format!("{split}[{number}].{key}");
                let name = Path::new(&shard.file);
                let mut parts = name.components();
                let is_plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
                if !is_plain {
                    let (key, file) = (key("file"), &shard.file);
                    return Err(damaged(format!("{key} = {file:?} is not the name of a file")));
                }
                let file = dir.join(name);
                let place = file.canonicalize().map_err(FileError::read(&file))?;
                if place.parent() != Some(&*folder) {
                    let key = key("file");
                    return Err(damaged(format!(
                        "{key} leads out of the folder, to {}",
                        place.display()
                    )));
                }
                let found = std::fs::metadata(&file).map_err(FileError::read(&file))?;
                if !found.is_file() || found.len() != shard.bytes {
                    let (key, bytes, found) = (key("bytes"), shard.bytes, found.len());
                    let reason = format!("{key} = {bytes}, but {} has {found}", file.display());
                    return Err(damaged(reason));
                }
                let sum = tokens.checked_add(shard.tokens);
                let sum = sum.filter(|_| shard.documents.max(shard.tokens) <= shard.bytes);
                tokens = sum.ok_or_else(|| {
                    let (key, tokens) = (key("tokens"), shard.tokens);
                    let (documents, bytes) = (shard.documents, shard.bytes);
                    damaged(format!(
                        "{key} = {tokens} and {documents} documents do not fit into {bytes} bytes"
                    ))
                })?;
            }
        }
        Ok(())
    }
}

/// Reads a JSON file of up to `limit` bytes that is `what`.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    path: &Path,
    limit: u64,
    what: &str,
) -> Result<T, DatasetError> {
    let size = std::fs::metadata(path).map_err(FileError::read(path))?.len();
    if size > limit {
        return Err(DatasetError::damaged(path, format!("{size} bytes; the limit is {limit}")));
    }
    let json = read_text_up_to(path, limit)?;
    serde_json::from_str(&json).map_err(|e| DatasetError::damaged(path, format!("not {what}: {e}")))
}

/// Writes a JSON file, completely or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), DatasetError> {
    let json = serde_json::to_string_pretty(value);
    let json = json.map_err(|e| FileError::write(path)(e.into()))?;
    Ok(block_transformer_files::write(path, (json + "\n").as_bytes())?)
}

/// The documents of several token files.
#[derive(Debug)]
pub(crate) struct ShardedDocuments {
    shards: Vec<TokenFile>,
    /// For each shard, the number of documents up to its end.
    ends: Vec<usize>,
    tokens: usize,
}

impl ShardedDocuments {
    /// Opens the shards of `split` in `dir` and verifies their checksums. They must belong to the
    /// tokenizer with the fingerprint `tokenizer`.
    pub(crate) fn open(
        dir: &Path,
        index: &ShardIndex,
        split: Split,
        tokenizer: u32,
    ) -> Result<Self, DatasetError> {
        let open = |shard: &Shard| {
            let path: PathBuf = dir.join(&shard.file);
            let file = TokenFile::open(&path)?;
            file.check_tokenizer(&path, tokenizer)?;
            let found = (file.len() as u64, file.total_tokens() as u64);
            if found != (shard.documents, shard.tokens) {
                let (documents, tokens) = found;
                let recorded = format!("{} of {}", shard.documents, shard.tokens);
                return Err(DatasetError::damaged(
                    &path,
                    format!(
                        "{documents} documents of {tokens} tokens, but {INDEX} records {recorded}"
                    ),
                ));
            }
            file.read_at_random();
            Ok(file)
        };
        let shards = index.of(split).par_iter().map(open).collect::<Vec<_>>();
        let shards = shards.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (mut ends, mut documents, mut tokens) = (Vec::new(), 0, 0);
        for shard in &shards {
            documents += shard.len();
            tokens += shard.total_tokens();
            ends.push(documents);
        }
        Ok(Self { shards, ends, tokens })
    }

    /// The shard that holds document `index`, and the document's number in it.
    fn find(&self, index: usize) -> (&TokenFile, usize) {
        let shard = self.ends.partition_point(|&end| end <= index);
        let first = if shard == 0 { 0 } else { self.ends[shard - 1] };
        (&self.shards[shard], index - first)
    }
}

impl Documents for ShardedDocuments {
    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn document_len(&self, index: usize) -> usize {
        let (shard, index) = self.find(index);
        shard.document_len(index)
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>) {
        let (shard, index) = self.find(index);
        shard.read(index, range, out);
    }

    fn total_tokens(&self) -> usize {
        self.tokens
    }
}
