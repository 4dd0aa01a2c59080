//! Batches of documents, read on a thread of its own.

use std::sync::mpsc::SyncSender;

use crate::error::DatasetError;
use crate::source::{BytesRead, DocumentSource, Position};
use crate::split::{Split, VALIDATION_SHARE, holdout_interval, split_of};

/// Bytes of text in a batch, for each thread that tokenizes: enough work, but little memory.
const BYTES_PER_THREAD: usize = 2 << 20;
/// The least bytes of a batch.
const LEAST_BYTES: usize = 8 << 20;

/// A document, or a part of the only one.
pub(super) struct Document {
    pub(super) split: Split,
    /// The place after it in the source.
    pub(super) end: Position,
    /// Documents up to its end.
    pub(super) count: u64,
}

/// Documents that are tokenized together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) documents: Vec<Document>,
    /// The text of each of `documents`.
    pub(super) texts: Vec<String>,
    /// Bytes of text.
    bytes: usize,
}

impl Batch {
    fn push(&mut self, document: Document, text: String) {
        if !text.is_empty() {
            self.bytes += text.len();
            self.documents.push(document);
            self.texts.push(text);
        }
    }
}

/// Sends the documents of `source` after `from`, where `count` documents were read before, in
/// batches. Ends early after an error, and if nobody receives the batches.
pub(super) fn send_batches(
    source: &DocumentSource,
    from: Position,
    mut count: u64,
    read: BytesRead,
    sender: &SyncSender<Result<Batch, DatasetError>>,
) {
    let interval = holdout_interval(VALIDATION_SHARE);
    let size = LEAST_BYTES.max(BYTES_PER_THREAD * rayon::current_num_threads());
    let mut batch = Batch::default();
    let mut documents = source.documents_from(from, read).peekable();
    while let Some((end, text)) = documents.next() {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                let _ = sender.send(Ok(batch)).and_then(|()| sender.send(Err(error)));
                return;
            }
        };
        let index = count as usize;
        count += 1;
        let document = |split| Document { split, end, count };
        if index == 0 && documents.peek().is_none() {
            let (train, validation) = cut(&text);
            batch.push(document(Split::Train), train.into());
            batch.push(document(Split::Validation), validation.into());
        } else {
            batch.push(document(split_of(index, interval)), text);
        }
        if batch.bytes >= size && sender.send(Ok(std::mem::take(&mut batch))).is_err() {
            return;
        }
    }
    let _ = sender.send(Ok(batch));
}

/// Cuts a text into training and validation text, at the last line boundary before the validation
/// share.
fn cut(text: &str) -> (&str, &str) {
    let at = text.floor_char_boundary((text.len() as f64 * (1.0 - VALIDATION_SHARE)) as usize);
    let at = text[..at].rfind('\n').map_or(at, |newline| newline + 1);
    text.split_at(at)
}
