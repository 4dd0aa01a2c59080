//! The journal of an unfinished preparation, from which it continues after a kill.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use block_transformer_files::FileError;
use serde::{Deserialize, Serialize};

use super::{shard_name, shard_number};
use crate::counts::DocumentCounts;
use crate::error::DatasetError;
use crate::shards::{MOST_SHARDS, Shard, ShardIndex, read_json, write_json};
use crate::source::{DocumentSource, Position};
use crate::split::Split;

/// The name of the journal.
pub(super) const JOURNAL: &str = "unfinished.json";

/// The largest journal in bytes: the counts of a large vocabulary and the names of many files.
const MAX_JOURNAL: u64 = 256 << 20;

/// Everything that the token files of a preparation depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inputs {
    /// The version of this program.
    program: String,
    /// Fingerprint of the tokenizer.
    pub(super) tokenizer: u32,
    /// Tokens per shard.
    shard_tokens: u64,
    /// The key of the text in JSONL and Parquet files.
    text_key: String,
    files: Vec<SourceFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceFile {
    path: PathBuf,
    bytes: u64,
    /// Time of the last change, in nanoseconds after 1970; 0 if it is not known.
    modified: u128,
}

impl Inputs {
    pub(super) fn new(
        source: &DocumentSource,
        tokenizer: u32,
        shard_tokens: u64,
    ) -> Result<Self, DatasetError> {
        let file = |path: &PathBuf| -> Result<_, DatasetError> {
            let meta = std::fs::metadata(path).map_err(FileError::read(path))?;
            let path = path.canonicalize().map_err(FileError::read(path))?;
            let modified = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified = modified.map_or(0, |after| after.as_nanos());
            Ok(SourceFile { path, bytes: meta.len(), modified })
        };
        let files = source.files().iter().map(file).collect::<Result<_, _>>()?;
        let (program, text_key) =
            (env!("CARGO_PKG_VERSION").into(), source.options().text_key.clone());
        Ok(Self { program, tokenizer, shard_tokens, text_key, files })
    }

    /// What all ranks must have in common, with the names of the properties. The folders of the files can differ.
    pub(super) fn of_documents(&self, source: &DocumentSource) -> Vec<(&'static str, String)> {
        let mut properties = vec![
            ("the version", self.program.clone()),
            ("the tokenizer", self.tokenizer.to_string()),
            ("the text key", self.text_key.clone()),
            ("the largest document", source.options().max_document.to_string()),
            ("the number of files", self.files.len().to_string()),
        ];
        let file = |SourceFile { path, bytes, .. }: &SourceFile| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            ("the files", format!("{name} of {bytes} bytes"))
        };
        properties.extend(self.files.iter().map(file));
        properties
    }

    /// Says what differs between these inputs, those of a journal, and `now`.
    fn difference(&self, now: &Self) -> Option<String> {
        let changed = |(then, now): (&SourceFile, &SourceFile)| {
            (then != now).then(|| {
                if then.path == now.path {
                    format!("{} has changed", then.path.display())
                } else {
                    format!("it reads {} in place of {}", then.path.display(), now.path.display())
                }
            })
        };
        let values = |key: &str, then: &dyn std::fmt::Display, now: &dyn std::fmt::Display| {
            Some(format!("it began with {key} {then}, not {now}"))
        };
        if self.program != now.program {
            return values("version", &self.program, &now.program);
        }
        if self.tokenizer != now.tokenizer {
            return Some("it began with another tokenizer".into());
        }
        if self.shard_tokens != now.shard_tokens {
            return values("shards of", &self.shard_tokens, &now.shard_tokens);
        }
        if self.text_key != now.text_key {
            return values("the text key", &self.text_key, &now.text_key);
        }
        if self.files.len() != now.files.len() {
            return Some(format!("it reads {} files, not {}", self.files.len(), now.files.len()));
        }
        self.files.iter().zip(&now.files).find_map(changed)
    }
}

/// The content of `unfinished.json`: the state after the last finished shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) inputs: Inputs,
    /// The place in the source after the last document.
    pub(super) position: Position,
    /// Documents up to there.
    pub(super) documents: u64,
    pub(super) index: ShardIndex,
    pub(super) counts: DocumentCounts,
}

impl Journal {
    /// Starts a journal of `inputs` with a tokenizer of `vocab_size` ids.
    pub(super) fn new(inputs: Inputs, vocab_size: usize) -> Self {
        let (position, index) = (Position::default(), ShardIndex::default());
        Self { inputs, position, documents: 0, index, counts: DocumentCounts::new(vocab_size) }
    }

    /// Reads the journal of `dir`, if there is one, and checks that it belongs to the same
    /// preparation as `self`, which has just started.
    pub(super) fn find(self, dir: &Path) -> Result<Self, DatasetError> {
        let path = dir.join(JOURNAL);
        if !path.exists() {
            return Ok(self);
        }
        let other = |reason| DatasetError::OtherPreparation { dir: dir.into(), reason };
        let in_journal = |error: DatasetError| other(error.to_string());
        let found: Self = read_json(&path, MAX_JOURNAL, "a journal").map_err(in_journal)?;
        if let Some(reason) = found.inputs.difference(&self.inputs) {
            return Err(other(reason));
        }
        found.index.check(dir, &path).map_err(in_journal)?;
        let sums_fit = Split::ALL.into_iter().all(|split| {
            let (mut tokens, mut documents) = (0_u64, 0_u64);
            for shard in found.index.of(split) {
                tokens = tokens.saturating_add(shard.tokens);
                documents = documents.saturating_add(shard.documents);
            }
            let size = found.counts.size(split);
            (size.tokens, size.documents) == (tokens, documents)
        });
        let fits = sums_fit
            && Split::ALL.into_iter().all(|split| are_named(split, found.index.of(split)))
            && found.counts.vocab_size() == self.counts.vocab_size()
            && found.position.file < found.inputs.files.len();
        if fits { Ok(found) } else { Err(other(format!("{} is damaged", path.display()))) }
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), DatasetError> {
        write_json(&dir.join(JOURNAL), self)
    }
}

/// Returns whether the files of `shards` have the names of shards, in increasing order.
fn are_named(split: Split, shards: &[Shard]) -> bool {
    let number = |shard: &Shard| shard_number(&shard.file);
    let is_named = |shard: &Shard| {
        number(shard) < MOST_SHARDS && shard.file == shard_name(split, number(shard))
    };
    shards.iter().all(is_named) && shards.windows(2).all(|two| number(&two[0]) < number(&two[1]))
}
