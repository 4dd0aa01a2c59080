//! Files of documents.

use block_transformer_datasets::{DocumentSource, ReadOptions};

use crate::scratch::Scratch;

/// The names of the formats and compressions.
const NAMES: [&str; 7] =
    ["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz", "a.txt.zst", "a.jsonl.zst", "a.parquet"];

/// The largest document in bytes.
const LIMIT: u64 = 1 << 20;

/// A file of documents; the first byte selects its format.
pub(crate) fn documents(bytes: &[u8]) -> bool {
    let Some((kind, content)) = bytes.split_first() else { return false };
    let name = NAMES[usize::from(*kind) % NAMES.len()];
    let scratch = Scratch::new(&[(name, content)]);
    let options = ReadOptions { max_document: LIMIT, ..ReadOptions::default() };
    let source = DocumentSource::open(&scratch.path(name)).unwrap().with_options(options);
    let mut accepted = true;
    for text in source.documents() {
        match scratch.named(text) {
            Some(text) => {
                assert!(!text.trim().is_empty() && text.len() as u64 <= LIMIT);
            }
            None => accepted = false,
        }
    }
    scratch.unchanged();
    accepted
}
