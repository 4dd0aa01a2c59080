//! Token files, Megatron pairs, and the descriptions of prepared corpora.

use block_transformer_datasets::{Documents, MegatronPair, PreparedCorpus, Split, WindowKind};
use serde_json::{Value, json};

use crate::scratch::Scratch;

/// Bytes of the header of a token file.
const HEADER: usize = 64;

/// Reads the start, the end and, of a short document, all of every document.
fn read_documents(documents: &dyn Documents) {
    let mut total = 0;
    for index in 0..documents.len() {
        let length = documents.document_len(index);
        total += length;
        for range in [0..length.min(100), length.saturating_sub(100)..length, length..length] {
            let (mut ids, expected) = (Vec::new(), range.len());
            documents.read(index, range, &mut ids);
            assert_eq!(ids.len(), expected);
        }
    }
    assert_eq!(total, documents.total_tokens());
}

/// The little-endian integer of 8 bytes at `at`; 0 beyond the end.
fn integer(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().expect("8 bytes")))
}

fn set(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The same file with the checksums that belong to its bytes, so that what stands behind them is checked too.
fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < HEADER {
        return bytes;
    }
    let (width, tokens) = (integer(&bytes, 12) as u32, integer(&bytes, 24));
    let ids_end = tokens.checked_mul(u64::from(width)).and_then(|n| n.checked_add(HEADER as u64));
    let ids_end = ids_end.map_or(usize::MAX, |end| end as usize).min(bytes.len());
    let ends = ids_end.next_multiple_of(8).min(bytes.len());
    let (ids, ends) = (crc32fast::hash(&bytes[HEADER..ids_end]), crc32fast::hash(&bytes[ends..]));
    set(&mut bytes, 40, ids);
    set(&mut bytes, 44, ends);
    let header = crc32fast::hash(&bytes[..HEADER - 4]);
    set(&mut bytes, HEADER - 4, header);
    bytes
}

/// The description of a corpus with the given numbers of documents and tokens for training.
fn description(tokenizer: u32, documents: u64, tokens: u64) -> Value {
    json!({
        "name": "a", "tokenizer": tokenizer, "frequency_loss": 1.0,
        "train": {"documents": documents, "tokens": tokens, "bytes": 0},
        "validation": {"documents": 0, "tokens": 0, "bytes": 0},
    })
}

/// A token file, as it is and with checksums that fit. Its corpus claims the numbers of its header.
pub(crate) fn token_file(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for bytes in [bytes.to_vec(), with_checksums(bytes.to_vec())] {
        let tokenizer = (integer(&bytes, 16) >> 32) as u32;
        let info = description(tokenizer, integer(&bytes, 32), integer(&bytes, 24)).to_string();
        let scratch = Scratch::new(&[("train.tok", &bytes), ("corpus.json", info.as_bytes())]);
        let corpus = PreparedCorpus::open(scratch.dir()).expect("the description is valid");
        if let Some(documents) = scratch.named(corpus.split(Split::Train)) {
            read_documents(&*documents);
            // the promises of windows: only ids of documents and the id that ends them
            for kind in [WindowKind::Documents, WindowKind::Contiguous] {
                if let Ok(packing) = corpus.packing(kind, Split::Train, 4, 8, Some(1)) {
                    assert!(packing.window(0).ids.len() <= 8);
                }
            }
            accepted = true;
        }
        scratch.unchanged();
    }
    accepted
}

/// A Megatron pair: the length of the index as u16, the index, the ids.
pub(crate) fn megatron(bytes: &[u8]) -> bool {
    let (length, rest) = bytes.split_at(bytes.len().min(2));
    let length = length.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let (index, ids) = rest.split_at(length.min(rest.len()));
    let scratch = Scratch::new(&[("a.idx", index), ("a.bin", ids)]);
    let mut accepted = true;
    for validation in [0.1, 0.5, 1.0, 0.0, -1.0, 1e-300, f64::NAN] {
        let pair = MegatronPair { path: scratch.path("a.idx"), validation };
        for split in [Split::Train, Split::Validation] {
            match scratch.named(pair.split(split)) {
                Some(documents) => read_documents(&*documents),
                // the other shares are those of a damaged description
                None => accepted &= validation != 0.1,
            }
        }
    }
    scratch.unchanged();
    accepted
}

/// A token file with the given documents.
fn tokens(documents: &[&[u16]]) -> Vec<u8> {
    let ids: Vec<u8> = documents.concat().iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut bytes = b"ZOOTOK\r\n".to_vec();
    bytes.extend([1_u32, 2, 300, 7].iter().flat_map(|n| n.to_le_bytes()));
    let counts = [ids.len() as u64 / 2, documents.len() as u64];
    bytes.extend(counts.iter().flat_map(|n| n.to_le_bytes()));
    bytes.resize(HEADER, 0);
    bytes.extend(ids);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let ends = documents.iter().scan(0_u64, |end, ids| {
        *end += ids.len() as u64;
        Some(*end)
    });
    bytes.extend(ends.flat_map(u64::to_le_bytes));
    with_checksums(bytes)
}

/// Reads the corpus of a folder with two documents for training and one for validation.
fn read_corpus(scratch: &Scratch) -> bool {
    let Some(corpus) = scratch.named(PreparedCorpus::open(scratch.dir())) else { return false };
    let written = serde_json::to_string(&corpus.info).expect("a description is JSON");
    let again: Value = serde_json::from_str(&written).expect("the same description");
    assert_eq!(again["train"]["documents"], json!(corpus.info.train.documents));
    let mut accepted = true;
    for split in [Split::Train, Split::Validation] {
        // the file of a Megatron pair can be anywhere
        match corpus.split(split) {
            Ok(documents) => read_documents(&*documents),
            Err(error) => {
                crate::scratch::said(&error);
                accepted = false;
            }
        }
    }
    accepted
}

/// A `corpus.json`.
pub(crate) fn corpus(bytes: &[u8]) -> bool {
    let (train, validation) = (tokens(&[&[5, 6, 7], &[8, 9]]), tokens(&[&[10]]));
    let scratch = Scratch::new(&[
        ("corpus.json", bytes),
        ("train.tok", &train),
        ("validation.tok", &validation),
    ]);
    let accepted = read_corpus(&scratch);
    scratch.unchanged();
    accepted
}

/// The `index.json` of a corpus of several token files. The folder also has a link that leads out of it.
pub(crate) fn corpus_index(bytes: &[u8]) -> bool {
    let outside = Scratch::new(&[("secret.tok", &tokens(&[&[5, 6, 7], &[8, 9]]))]);
    let (one, two) = (tokens(&[&[5, 6, 7]]), tokens(&[&[8, 9]]));
    let mut info = description(7, 2, 5);
    info["sharded"] = true.into();
    let info = info.to_string();
    let mut scratch = Scratch::new(&[
        ("corpus.json", info.as_bytes()),
        ("one.tok", &one),
        ("two.tok", &two),
        ("index.json", bytes),
    ]);
    #[cfg(unix)]
    scratch.link("link.tok", &outside.path("secret.tok"));
    let accepted = read_corpus(&scratch);
    scratch.unchanged();
    accepted
}
