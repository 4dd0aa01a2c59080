//! Writing the shards of a corpus.

use std::path::{Path, PathBuf};

use super::batches::Document;
use super::journal::Journal;
use super::{shard_name, shard_number};
use crate::error::DatasetError;
use crate::shards::{MOST_SHARDS, Shard};
use crate::split::Split;
use crate::token_file::TokenFileWriter;

/// The most documents of a shard. Their ends are kept in memory until it is finished.
const MOST_DOCUMENTS: u64 = 1 << 22;

/// Writes documents into shards. A shard is a range of documents with a token file for each split
/// that has some of them.
pub(super) struct ShardWriter<'a> {
    dir: &'a Path,
    shard_tokens: u64,
    /// The number of the shard that is not finished.
    number: usize,
    pub(super) journal: Journal,
    /// The token files of the shard that is not finished, in the order of [`Split::ALL`].
    files: [Option<OpenFile>; 2],
}

/// A token file that is not finished.
struct OpenFile {
    path: PathBuf,
    writer: TokenFileWriter,
    documents: u64,
    tokens: u64,
}

impl<'a> ShardWriter<'a> {
    /// Continues after the shards of `journal`.
    pub(super) fn new(dir: &'a Path, shard_tokens: u64, journal: Journal) -> Self {
        let last = Split::ALL.map(|split| journal.index.of(split).last());
        // a shard without documents of a split has no file of it
        let next = |shard: &Shard| shard_number(&shard.file) + 1;
        let number = last.into_iter().flatten().map(next).max().unwrap_or(0);
        Self { dir, shard_tokens, number, journal, files: [None, None] }
    }

    /// Adds a document, and finishes the shard if it is full.
    pub(super) fn push(&mut self, document: &Document, ids: &[u32]) -> Result<(), DatasetError> {
        let number = self.number;
        let open = &mut self.files[document.split as usize];
        let file = match open {
            Some(file) => file,
            None => {
                if number == MOST_SHARDS {
                    let (most, tokens) = (MOST_SHARDS, self.shard_tokens);
                    return Err(DatasetError::TooManyShards { most, tokens });
                }
                let path = self.dir.join(shard_name(document.split, number));
                let (vocab_size, tokenizer) =
                    (self.journal.counts.vocab_size(), self.journal.inputs.tokenizer);
                let writer = TokenFileWriter::create(&path, vocab_size, tokenizer)?;
                open.insert(OpenFile { path, writer, documents: 0, tokens: 0 })
            }
        };
        file.writer.push(ids)?;
        file.documents += 1;
        file.tokens += ids.len() as u64;
        self.journal.counts.add(document.split, ids, document.bytes);
        (self.journal.position, self.journal.documents) = (document.end, document.count);
        let open = || self.files.iter().flatten();
        let tokens: u64 = open().map(|file| file.tokens).sum();
        let documents: u64 = open().map(|file| file.documents).sum();
        if tokens >= self.shard_tokens || documents >= MOST_DOCUMENTS {
            self.finish_shard()?;
            self.journal.write(self.dir)?;
        }
        Ok(())
    }

    /// Finishes the files of the shard, if it has documents.
    pub(super) fn finish_shard(&mut self) -> Result<(), DatasetError> {
        for (split, file) in Split::ALL.into_iter().zip(&mut self.files) {
            let Some(OpenFile { path, writer, documents, tokens }) = file.take() else { continue };
            let bytes = writer.finish()?;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.journal.index.push(split, Shard { file, documents, tokens, bytes });
        }
        self.number += 1;
        Ok(())
    }
}
