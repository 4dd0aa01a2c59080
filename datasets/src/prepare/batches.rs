//! Batches of documents, read on a thread of its own.

use std::sync::mpsc::SyncSender;

use block_transformer_collectives::{Collective, of_rank_0};
use crc32fast::Hasher;

use crate::error::DatasetError;
use crate::source::{BytesRead, DocumentSource, Position};
use crate::split::{Split, VALIDATION_SHARE, holdout_interval, split_of};

/// Bytes of text in a batch, for each thread that tokenizes: enough work, but little memory.
const BYTES_PER_THREAD: usize = 2 << 20;
/// The least bytes of a batch.
const LEAST_BYTES: usize = 8 << 20;
/// Bytes of text in a batch of one of several ranks, for each of its threads. Smaller batches share the end of a
/// corpus more evenly.
const BYTES_OF_RANK: usize = 1 << 20;

/// A document, or a part of the only one.
pub(super) struct Document {
    pub(super) split: Split,
    /// The place after it in the source.
    pub(super) end: Position,
    /// Documents up to its end.
    pub(super) count: u64,
    /// Bytes of its text.
    pub(super) bytes: usize,
}

/// Documents that are tokenized together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) documents: Vec<Document>,
    /// The text of each of `documents`; empty if another rank tokenizes them.
    pub(super) texts: Vec<String>,
    /// With several ranks: CRC-32 of the texts up to the end of the batch that this process has read.
    pub(super) checksum: u32,
    /// The rank that tokenizes it.
    pub(super) rank: usize,
}

/// How documents become batches.
#[derive(Clone, Copy)]
pub(super) struct Batching {
    /// Bytes of text in a batch.
    size: usize,
    rank: usize,
    ranks: usize,
}

impl Batching {
    /// The batches of a rank. All ranks make the same batches, by the number of threads of rank 0.
    pub(super) fn new(ranks: &dyn Collective) -> Result<Self, DatasetError> {
        let threads = rayon::current_num_threads();
        let size = match ranks.size() {
            1 => LEAST_BYTES.max(BYTES_PER_THREAD * threads),
            _ => of_rank_0::<_, DatasetError>(ranks, || Ok(BYTES_OF_RANK * threads))?,
        };
        Ok(Self { size, rank: ranks.rank(), ranks: ranks.size() })
    }
}

/// Batches that are being filled.
struct Filler<'a> {
    batching: Batching,
    sender: &'a SyncSender<Result<Batch, DatasetError>>,
    /// Batches that were sent.
    number: usize,
    batch: Batch,
    /// Bytes of text in `batch`.
    bytes: usize,
    checksum: Hasher,
}

impl Filler<'_> {
    fn push(&mut self, split: Split, end: Position, count: u64, text: String) {
        if text.is_empty() {
            return;
        }
        let Batching { rank, ranks, .. } = self.batching;
        self.bytes += text.len();
        self.batch.documents.push(Document { split, end, count, bytes: text.len() });
        if ranks > 1 {
            self.checksum.update(&text.len().to_le_bytes());
            self.checksum.update(text.as_bytes());
        }
        // the batches are shared by rank in their order
        if self.number % ranks == rank {
            self.batch.texts.push(text);
        }
    }

    /// Sends the batch. Returns whether somebody receives it.
    fn send(&mut self) -> bool {
        self.batch.checksum = self.checksum.clone().finalize();
        self.batch.rank = self.number % self.batching.ranks;
        (self.number, self.bytes) = (self.number + 1, 0);
        self.sender.send(Ok(std::mem::take(&mut self.batch))).is_ok()
    }
}

/// Sends the documents of `source` after `from`, where `count` documents were read before, in
/// batches. Ends early after an error, and if nobody receives the batches.
pub(super) fn send_batches(
    source: &DocumentSource,
    (from, mut count): (Position, u64),
    read: BytesRead,
    batching: Batching,
    sender: &SyncSender<Result<Batch, DatasetError>>,
) {
    let interval = holdout_interval(VALIDATION_SHARE);
    let (batch, checksum) = (Batch::default(), Hasher::new());
    let mut batches = Filler { batching, sender, number: 0, batch, bytes: 0, checksum };
    let mut documents = source.documents_from(from, read).peekable();
    while let Some((end, text)) = documents.next() {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                if batches.send() {
                    let _ = sender.send(Err(error));
                }
                return;
            }
        };
        let index = count as usize;
        count += 1;
        if index == 0 && documents.peek().is_none() {
            let (train, validation) = cut(&text);
            batches.push(Split::Train, end, count, train.into());
            batches.push(Split::Validation, end, count, validation.into());
        } else {
            batches.push(split_of(index, interval), end, count, text);
        }
        if batches.bytes >= batching.size && !batches.send() {
            return;
        }
    }
    batches.send();
}

/// Cuts a text into training and validation text, at the last line boundary before the validation
/// share.
fn cut(text: &str) -> (&str, &str) {
    let at = text.floor_char_boundary((text.len() as f64 * (1.0 - VALIDATION_SHARE)) as usize);
    let at = text[..at].rfind('\n').map_or(at, |newline| newline + 1);
    text.split_at(at)
}
