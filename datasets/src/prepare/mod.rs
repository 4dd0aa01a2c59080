//! Preparation of a text corpus: documents are tokenized into token files.

mod batches;
mod encoded;
mod journal;
mod writer;

use std::path::Path;
use std::sync::mpsc::sync_channel;

use block_transformer_collectives::{
    Alone, Collective, CollectiveError, check_same, of_rank_0, share_in_order,
};
use block_transformer_files::FileError;
use block_transformer_text::Tokenizer;

use crate::corpus::{CorpusInfo, PreparedCorpus};
use crate::counts::FrequencyLoss;
use crate::error::DatasetError;
use crate::packing::Order;
use crate::shards::INDEX;
use crate::source::{BytesRead, DocumentSource, Position};
use crate::split::Split;
use crate::token_file::TokenFile;
use batches::{Batch, Batching, send_batches};
use encoded::Encoded;
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
        self.run_on(&Alone, progress)
    }

    /// [`run`](Self::run) on several ranks, with the files of one rank. All ranks read all documents, and each
    /// tokenizes a part of them. Rank 0 writes the folder. The number of ranks may change when an unfinished
    /// preparation is continued.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and if a rank has other files, another tokenizer, or has left.
    pub fn run_on(
        &self,
        ranks: &dyn Collective,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PreparedCorpus, DatasetError> {
        let (dir, vocab_size) = (self.dir, self.tokenizer.vocab_size());
        let inputs = Inputs::new(self.source, self.tokenizer.fingerprint()?, self.shard_tokens)?;
        check_same(ranks, &inputs.of_documents(self.source))?;
        if ranks.rank() > 0 {
            self.shared(ranks, None, progress)?;
            let info = of_rank_0::<Option<CorpusInfo>, DatasetError>(ranks, || Ok(None))?;
            let info = info.ok_or(CollectiveError::OtherWork(0))?;
            return Ok(PreparedCorpus { dir: dir.into(), info });
        }
        let journal = Journal::new(inputs, vocab_size).find(dir)?;
        let is_new = !dir.exists();
        PreparedCorpus::begin(dir)?;
        let prepared = self.continued(ranks, journal, progress);
        if prepared.is_err() && is_new {
            // fails, as it should, if there are finished shards
            let _ = std::fs::remove_dir(dir);
        }
        let prepared = prepared?;
        of_rank_0::<_, DatasetError>(ranks, || Ok(Some(prepared.info.clone())))?;
        Ok(prepared)
    }

    /// The part of rank 0, which continues after the shards of `journal`.
    fn continued(
        &self,
        ranks: &dyn Collective,
        journal: Journal,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PreparedCorpus, DatasetError> {
        if journal.documents == 0 {
            remove_shards(self.dir)?;
        }
        let mut writer = ShardWriter::new(self.dir, self.shard_tokens, journal);
        self.shared(ranks, Some(&mut writer), progress)?;
        self.finish(writer)
    }

    /// Tokenizes the documents on all ranks. Rank 0 has the `writer`.
    fn shared(
        &self,
        ranks: &dyn Collective,
        mut writer: Option<&mut ShardWriter<'_>>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), DatasetError> {
        let begin = || match &writer {
            Some(ShardWriter { journal, .. }) => Ok((journal.position, journal.documents)),
            None => Ok((Position::default(), 0)),
        };
        let (from, count) = of_rank_0::<_, DatasetError>(ranks, begin)?;
        let batching = Batching::new(ranks)?;
        let read = BytesRead::default();
        read.add(self.source.bytes_before(from.file)?);
        let total = self.source.bytes()?;
        let mut at = Progress { done: read.get(), total, tokens: 0, continued: count };
        progress(at);
        std::thread::scope(|scope| {
            // with one batch that is tokenized and one that is read; those of other ranks have no text
            let (sender, batches) = sync_channel(ranks.size());
            let reader = read.clone();
            let from = (from, count);
            scope.spawn(move || send_batches(self.source, from, reader, batching, &sender));
            let encode = |batch: &Batch| Encoded::new(batch, self.tokenizer);
            share_in_order(ranks, batches.into_iter(), encode, |batch, encoded| {
                let lengths = (encoded.ids.len(), batch.documents.len());
                if encoded.checksum != batch.checksum || lengths.0 != lengths.1 {
                    return Err(DatasetError::OtherDocuments(batch.rank));
                }
                for (document, ids) in batch.documents.iter().zip(&encoded.ids) {
                    at.tokens += ids.len() as u64;
                    if let Some(writer) = &mut writer {
                        writer.push(document, ids)?;
                    }
                }
                progress(Progress { done: read.get().min(total), ..at });
                Ok(())
            })
        })
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
