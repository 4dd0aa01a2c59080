//! Preparation of a text corpus: documents are tokenized into token files.

mod batches;
mod journal;
mod writer;

use std::path::Path;
use std::sync::mpsc::sync_channel;

use block_transformer_files::FileError;
use block_transformer_text::Tokenizer;

use crate::corpus::{CorpusInfo, PreparedCorpus};
use crate::counts::FrequencyLoss;
use crate::error::DatasetError;
use crate::packing::Order;
use crate::shards::INDEX;
use crate::source::{BytesRead, DocumentSource};
use crate::split::Split;
use crate::token_file::TokenFile;
use batches::{Batch, send_batches};
use journal::{Inputs, JOURNAL, Journal};
use writer::ShardWriter;

/// Tokens per shard if nothing else is given: 256 MiB of ids with a vocabulary of up to 65,536.
pub const SHARD_TOKENS: u64 = 1 << 27;

/// How far a preparation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The amount done, in units that depend on the work: bytes of files, or documents.
    pub done: u64,
    /// The total of the same unit.
    pub total: u64,
    /// Tokens written by this process.
    pub tokens: u64,
    /// Documents that an earlier process, which was killed, has written.
    pub continued: u64,
}

/// The preparation of a corpus in a folder.
#[derive(Clone, Copy, Debug)]
pub struct Preparation<'a> {
    /// Name of the corpus.
    pub name: &'a str,
    /// Its documents.
    pub source: &'a DocumentSource,
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The folder to write.
    pub dir: &'a Path,
    /// Tokens after which another token file is begun, with the next document. A corpus with fewer
    /// tokens has one token file per split.
    pub shard_tokens: u64,
}

/// Tokenizes `source` into the folder `dir`, with shards of [`SHARD_TOKENS`] tokens. Calls
/// `progress` with the bytes of the files read and the total. See [`Preparation::run`].
///
/// # Errors
/// Those of [`Preparation::run`].
pub fn prepare(
    name: &str,
    source: &DocumentSource,
    tokenizer: &Tokenizer,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PreparedCorpus, DatasetError> {
    let preparation = Preparation { name, source, tokenizer, dir, shard_tokens: SHARD_TOKENS };
    preparation.run(&mut |at| progress(at.done, at.total))
}

impl Preparation<'_> {
    /// Tokenizes the documents on all threads of rayon's pool. Calls `progress` after each batch.
    /// The files that are written do not depend on the number of threads.
    ///
    /// Every 20th document is held out; if there is only one document, its end is held out.
    /// `corpus.json` is removed first and written last, so that a folder with this file is
    /// complete. If the process is killed, another call with the same arguments continues after the
    /// last finished shard, and ends with the same files.
    ///
    /// # Errors
    /// If a document cannot be read or tokenized, a split has no text, `dir` cannot be written or
    /// holds the unfinished preparation of something else.
    pub fn run(&self, progress: &mut dyn FnMut(Progress)) -> Result<PreparedCorpus, DatasetError> {
        let (dir, vocab_size) = (self.dir, self.tokenizer.vocab_size());
        let inputs = Inputs::new(self.source, self.tokenizer.fingerprint()?, self.shard_tokens)?;
        let journal = Journal::new(inputs, vocab_size).find(dir)?;
        let is_new = !dir.exists();
        PreparedCorpus::begin(dir)?;
        let prepared = self.continued(journal, progress);
        if prepared.is_err() && is_new {
            // fails, as it should, if there are finished shards
            let _ = std::fs::remove_dir(dir);
        }
        prepared
    }

    fn continued(
        &self,
        journal: Journal,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PreparedCorpus, DatasetError> {
        if journal.documents == 0 {
            remove_shards(self.dir)?;
        }
        let (from, count) = (journal.position, journal.documents);
        let read = BytesRead::default();
        read.add(journal.inputs.bytes_before(from.file));
        let total = self.source.bytes()?;
        let mut at = Progress { done: read.get(), total, tokens: 0, continued: count };
        progress(at);
        let mut writer = ShardWriter::new(self.dir, self.shard_tokens, journal);
        std::thread::scope(|scope| {
            // with one batch that is tokenized and one that is read
            let (sender, batches) = sync_channel(1);
            let reader = read.clone();
            scope.spawn(move || send_batches(self.source, from, count, reader, &sender));
            for batch in batches {
                at.tokens += self.write(&batch?, &mut writer)?;
                progress(Progress { done: read.get().min(total), ..at });
            }
            Ok::<_, DatasetError>(())
        })?;
        self.finish(writer)
    }

    /// Tokenizes and writes a batch. Returns the number of tokens.
    fn write(&self, batch: &Batch, writer: &mut ShardWriter<'_>) -> Result<u64, DatasetError> {
        let encoded = self.tokenizer.encode_batch(&batch.texts)?;
        let mut tokens = 0;
        for ((document, text), ids) in batch.documents.iter().zip(&batch.texts).zip(encoded) {
            tokens += ids.len() as u64;
            writer.push(document, &ids, text.len())?;
        }
        Ok(tokens)
    }

    fn finish(&self, mut writer: ShardWriter<'_>) -> Result<PreparedCorpus, DatasetError> {
        // an empty split is reported before its files would be finished
        writer.journal.counts.check(self.name)?;
        writer.finish_shard()?;
        let Journal { index, counts, inputs, .. } = writer.journal;
        let (dir, tokenizer) = (self.dir, inputs.tokenizer);
        let names = |split| index.of(split).iter().map(|shard| &*shard.file);
        // the layout without an index, with one token file per split
        let is_one = Split::ALL.into_iter().all(|split| names(split).eq([&*shard_name(split, 0)]));
        if !is_one {
            index.write(dir)?;
        }
        let mut loss = FrequencyLoss::new(&counts);
        // one at a time, because what was read of an open file counts as memory of the process
        for name in names(Split::Validation) {
            loss.add(&TokenFile::open(&dir.join(name))?);
        }
        let order = if is_one { Order::Listed } else { Order::Streamed };
        let info = counts.info(self.name, tokenizer, &loss, None);
        let info = CorpusInfo { sharded: !is_one, order, ..info };
        let corpus = PreparedCorpus::create(dir, self.tokenizer, info)?;
        remove(&dir.join(JOURNAL))?;
        Ok(corpus)
    }
}

/// The name of the token file of `split` in the shard with the given number. The first one is that
/// of a corpus without shards.
fn shard_name(split: Split, number: usize) -> String {
    match number {
        0 => format!("{split}.tok"),
        _ => format!("{split}-{number:05}.tok"),
    }
}

/// The number of the shard whose file has the name `file`.
fn shard_number(file: &str) -> usize {
    let digits: String = file.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Removes what an earlier preparation has left in `dir`, except for files that will be replaced.
fn remove_shards(dir: &Path) -> Result<(), DatasetError> {
    remove(&dir.join(JOURNAL))?;
    remove(&dir.join(INDEX))?;
    for number in 1.. {
        // a shard can lack the file of one split, but not of both
        let names = Split::ALL.map(|split| dir.join(shard_name(split, number)));
        if !names.iter().any(|name| name.exists()) {
            break;
        }
        names.iter().try_for_each(|name| remove(name))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), DatasetError> {
    if path.exists() {
        std::fs::remove_file(path).map_err(FileError::write(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
