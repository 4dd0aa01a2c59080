//! Token files: memory-mapped ids with document boundaries and checksums.
//!
//! Layout, little-endian: a header of 64 bytes (magic, version, bytes per id, vocabulary size,
//! tokenizer fingerprint, number of tokens, number of documents, CRC-32 of the ids, of the document
//! ends, and of the header itself), the ids as u16 or u32, padding to a multiple of 8 bytes, and
//! for each document a u64: the number of ids up to its end.

mod header;
mod writer;

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use block_transformer_files::FileError;
use memmap2::Mmap;

use crate::documents::{Documents, append_ids, map};
use crate::error::DatasetError;
use header::{Header, SIZE};

pub(crate) use writer::TokenFileWriter;

/// Bytes of ids that are verified together; a multiple of the width of an id.
const VERIFIED: usize = 1 << 20;

/// An open token file.
#[derive(Debug)]
pub(crate) struct TokenFile {
    map: Mmap,
    header: Header,
    /// Bytes per id.
    width: usize,
    /// Offset of the document ends, in bytes.
    ends_at: usize,
}

impl TokenFile {
    /// Opens the file and verifies its checksums.
    ///
    /// # Errors
    /// If the file cannot be read, is not a token file, or is damaged.
    pub(crate) fn open(path: &Path) -> Result<Self, DatasetError> {
        let map = map(path)?;
        let damaged = |reason: &str| DatasetError::damaged(path, reason);
        let header = Header::decode(&map, map.len() as u64).map_err(|reason| damaged(&reason))?;
        let width = header.width as usize;
        let ids_end = SIZE + width * header.tokens as usize;
        // The ids are read from the file, not from the map: the pages of a map that were read count
        // as memory of the process.
        let (ids_checksum, largest) = verified(path, &header).map_err(FileError::read(path))?;
        let file = Self { map, header, width, ends_at: ids_end.next_multiple_of(8) };
        let ends = &file.map[file.ends_at..];
        let checksums = (ids_checksum, crc32fast::hash(ends));
        if checksums != (header.ids_checksum, header.ends_checksum) {
            return Err(damaged("checksums differ: its bytes have changed"));
        }
        if largest.is_some_and(|id| id >= header.vocab_size) {
            return Err(damaged("it has an id that is not in its vocabulary"));
        }
        // even in a file with valid checksums, no document may extend beyond the ids
        let (ends, _) = ends.as_chunks();
        let ends = || ends.iter().map(|end| u64::from_le_bytes(*end));
        if !ends().is_sorted() || ends().next_back().unwrap_or(0) != header.tokens {
            return Err(damaged("document ends are out of order"));
        }
        Ok(file)
    }

    /// The index of the first id of document `index`.
    fn start(&self, index: usize) -> usize {
        let Some(before) = index.checked_sub(1) else { return 0 };
        let end = &self.map[self.ends_at + 8 * before..];
        end.first_chunk().map_or(0, |end| u64::from_le_bytes(*end) as usize)
    }

    /// Checks that the ids were produced by the tokenizer with the given fingerprint. `path` is the
    /// path of the file.
    pub(crate) fn check_tokenizer(
        &self,
        path: &Path,
        fingerprint: u32,
    ) -> Result<(), DatasetError> {
        if self.header.tokenizer == fingerprint {
            return Ok(());
        }
        Err(DatasetError::damaged(path, "the file belongs to another tokenizer than the corpus"))
    }

    /// Tells the operating system that documents will be read in no order, so that it reads no more
    /// than is needed.
    pub(crate) fn read_at_random(&self) {
        // without the advice, reading is slower, but the same
        #[cfg(unix)]
        let _ = self.map.advise(memmap2::Advice::Random);
    }
}

/// Reads all ids once. Returns their CRC-32 and the largest of them.
fn verified(path: &Path, header: &Header) -> io::Result<(u32, Option<u32>)> {
    let mut file = File::open(path)?;
    io::copy(&mut file.by_ref().take(SIZE as u64), &mut io::sink())?;
    let mut left = u64::from(header.width) * header.tokens;
    let (mut checksum, mut largest) = (crc32fast::Hasher::new(), None);
    let mut buffer = vec![0; VERIFIED];
    while left > 0 {
        let some = &mut buffer[..left.min(VERIFIED as u64) as usize];
        file.read_exact(some)?;
        checksum.update(some);
        let most = if header.width == 2 {
            some.as_chunks().0.iter().map(|id| u32::from(u16::from_le_bytes(*id))).max()
        } else {
            some.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).max()
        };
        largest = largest.max(most);
        left -= some.len() as u64;
    }
    Ok((checksum.finalize(), largest))
}

impl Documents for TokenFile {
    fn len(&self) -> usize {
        self.header.documents as usize
    }

    fn document_len(&self, index: usize) -> usize {
        self.start(index + 1) - self.start(index)
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>) {
        let start = SIZE + self.width * (self.start(index) + range.start);
        append_ids(&self.map[start..start + self.width * range.len()], self.width, out);
    }

    fn total_tokens(&self) -> usize {
        self.header.tokens as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn sample(vocab: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tok");
        let mut writer = TokenFileWriter::create(&path, vocab, 7).unwrap();
        for document in [&[5, 6, 7][..], &[], &[8, (vocab - 1) as u32]] {
            writer.push(document).unwrap();
        }
        writer.finish().unwrap();
        (dir, path)
    }

    /// A file of format version 1, which must stay readable.
    const FILE: &str = "\
        5a4f4f544f4b0d0a01000000020000002c0100000700000005000000000000000300000000000000\
        1d7f0a1a9ed9f79a000000000000000000000000faeaf4a005000600070008002b01000000000000\
        030000000000000003000000000000000500000000000000";

    #[test]
    fn the_format_does_not_change() {
        let (_dir, path) = sample(300);
        let written = std::fs::read(&path).unwrap();
        let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, FILE);
    }

    #[test]
    fn documents_round_trip_at_both_widths() {
        for vocab in [300, 70_000] {
            let (_dir, path) = sample(vocab);
            let file = TokenFile::open(&path).unwrap();
            assert_eq!((file.len(), file.total_tokens()), (3, 5));
            assert_eq!(file.header.vocab_size as usize, vocab);
            let lengths: Vec<_> = (0..3).map(|i| file.document_len(i)).collect();
            assert_eq!(lengths, [3, 0, 2]);
            let mut ids = Vec::new();
            file.read(0, 1..3, &mut ids);
            file.read(2, 0..2, &mut ids);
            assert_eq!(ids, [6, 7, 8, vocab as u32 - 1]);
        }
    }

    #[test]
    fn a_changed_byte_or_a_cut_is_noticed() {
        let (_dir, path) = sample(300);
        let good = std::fs::read(&path).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            // the padding between ids and ends is not part of a checksum
            let padding = (SIZE + 10..SIZE + 16).contains(&i);
            assert_eq!(TokenFile::open(&path).is_err(), !padding, "byte {i}");
            std::fs::write(&path, &good[..i]).unwrap();
            let error = TokenFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("a.tok"), "{error}");
        }
    }

    #[test]
    fn an_inconsistent_header_with_a_valid_checksum_is_refused() {
        let (_dir, path) = sample(300);
        let good = std::fs::read(&path).unwrap();
        let lie = |at: usize, value: u64| {
            let mut bad = good.clone();
            bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let ends = crc32fast::hash(&bad[good.len() - 24..]).to_le_bytes();
            bad[44..48].copy_from_slice(&ends);
            let header = crc32fast::hash(&bad[..60]).to_le_bytes();
            bad[60..64].copy_from_slice(&header);
            std::fs::write(&path, &bad).unwrap();
            TokenFile::open(&path).unwrap_err().to_string()
        };
        let cases: [(usize, u64, &str); 6] = [
            (0, 9, "not a token file"),
            (8, 1 << 33 | 2, "version 2"),
            (12, 300 << 32 | 3, "ids of 3 bytes"),
            (24, u64::MAX, "cut short"),
            (32, u64::MAX, "cut short"),
            (good.len() - 24, 9, "out of order"),
        ];
        for (at, value, reason) in cases {
            let error = lie(at, value);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn ids_outside_the_vocabulary_are_refused_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = TokenFileWriter::create(&dir.path().join("a.tok"), 300, 7).unwrap();
        assert!(writer.push(&[299, 300]).unwrap_err().to_string().contains("id 300"));
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
