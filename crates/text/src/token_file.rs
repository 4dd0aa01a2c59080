//! Token files: memory-mapped ids with document boundaries and checksums.
//!
//! Layout, little-endian: a header of 64 bytes (magic, version, bytes an id, vocabulary, tokenizer
//! fingerprint, tokens, documents, CRC-32 of the ids, of the ends, and of the header before it),
//! the ids as u16 or u32, padding to 8 bytes, and one u64 a document: the index of the id after
//! its last.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use memmap2::Mmap;

use crate::TextError;

const MAGIC: &[u8; 8] = b"ZOOTOK\r\n";
const VERSION: u32 = 1;
const HEADER: usize = 64;

/// Tokenized documents that can be read in any order.
pub trait Documents: Send + Sync {
    /// How many documents.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of document `index`.
    fn document_len(&self, index: usize) -> usize;

    /// Appends ids `range` of document `index` to `out`.
    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>);

    /// Ids of all documents.
    fn total_tokens(&self) -> usize {
        (0..self.len()).map(|i| self.document_len(i)).sum()
    }
}

/// An open token file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    map: Mmap,
    width: usize,
    tokens: usize,
    documents: usize,
    vocab_size: usize,
    tokenizer: u32,
}

impl TokenFile {
    /// Opens and checks the file.
    ///
    /// # Errors
    /// When it cannot be read, is no token file, is cut short, or its bytes have changed.
    pub fn open(path: &Path) -> Result<Self, TextError> {
        let file = File::open(path).map_err(TextError::io(path))?;
        // SAFETY: token files are replaced by renaming, never written in place.
        let map = unsafe { Mmap::map(&file) }.map_err(TextError::io(path))?;
        let bad = |reason: &str| Self::bad(path, reason);
        if map.len() < HEADER || &map[..8] != MAGIC {
            return Err(bad("not a token file"));
        }
        let number = |at: usize| u32_at(&map, at);
        let count = |at: usize| u64_at(&map, at) as usize;
        if number(8) != VERSION {
            return Err(bad(&format!("version {} where {VERSION} is read", number(8))));
        }
        if crc(&map[..60]) != number(60) {
            return Err(bad("the header is damaged"));
        }
        let (width, tokens, documents) = (number(12) as usize, count(24), count(32));
        if width != 2 && width != 4 {
            return Err(bad(&format!("ids of {width} bytes")));
        }
        if size(width, tokens, documents) != Some(map.len()) {
            return Err(bad("the file is cut short or has grown"));
        }
        let this = Self {
            path: path.into(),
            width,
            vocab_size: number(16) as usize,
            tokenizer: number(20),
            tokens,
            documents,
            map,
        };
        this.verify()?;
        Ok(this)
    }

    fn bad(path: &Path, reason: &str) -> TextError {
        TextError::content(path, format!("{reason}; prepare the corpus again"))
    }

    /// Checks ids and document ends against their checksums, as [`open`](Self::open) did.
    ///
    /// # Errors
    /// When its bytes have changed.
    pub fn verify(&self) -> Result<(), TextError> {
        let ids = &self.map[HEADER..HEADER + self.width * self.tokens];
        let ends = &self.map[self.ends_at()..];
        if crc(ids) != u32_at(&self.map, 40) || crc(ends) != u32_at(&self.map, 44) {
            return Err(Self::bad(&self.path, "checksums differ: its bytes have changed"));
        }
        // whatever wrote it, no document may reach outside the ids
        let (ends, _) = ends.as_chunks();
        let ends = || ends.iter().map(|end| u64::from_le_bytes(*end));
        if !ends().is_sorted() || ends().next_back().unwrap_or(0) != self.tokens as u64 {
            return Err(Self::bad(&self.path, "document ends are out of order"));
        }
        Ok(())
    }

    fn ends_at(&self) -> usize {
        (HEADER + self.width * self.tokens).next_multiple_of(8)
    }

    fn start(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => u64_at(&self.map, self.ends_at() + 8 * (index - 1)) as usize,
        }
    }

    /// Vocabulary of the tokenizer that wrote it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Fingerprint of the tokenizer that wrote it.
    pub fn tokenizer_fingerprint(&self) -> u32 {
        self.tokenizer
    }
}

impl Documents for TokenFile {
    fn len(&self) -> usize {
        self.documents
    }

    fn document_len(&self, index: usize) -> usize {
        self.start(index + 1) - self.start(index)
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>) {
        let start = HEADER + self.width * (self.start(index) + range.start);
        let bytes = &self.map[start..start + self.width * range.len()];
        if self.width == 2 {
            out.extend(bytes.as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))));
        } else {
            out.extend(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)));
        }
    }

    fn total_tokens(&self) -> usize {
        self.tokens
    }
}

/// Bytes of a file of so many ids and documents; none when no file can be so large.
fn size(width: usize, tokens: usize, documents: usize) -> Option<usize> {
    let ids_end = tokens.checked_mul(width)?.checked_add(HEADER)?;
    ids_end.checked_next_multiple_of(8)?.checked_add(documents.checked_mul(8)?)
}

fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Writes a token file as documents come, beside its path, and renames it when done; dropped before
/// that, it leaves nothing.
#[derive(Debug)]
pub struct TokenFileWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    width: usize,
    vocab_size: usize,
    tokenizer: u32,
    tokens: u64,
    ends: Vec<u64>,
    crc: Hasher,
}

impl TokenFileWriter {
    /// Starts a file of ids below `vocab_size`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path, vocab_size: usize, tokenizer: u32) -> Result<Self, TextError> {
        let partial = crate::file::partial(path);
        let file = File::create(&partial).map_err(TextError::io(&partial))?;
        let mut file = BufWriter::new(file);
        file.write_all(&[0; HEADER]).map_err(TextError::io(&partial))?;
        let width = if vocab_size <= 1 << 16 { 2 } else { 4 };
        Ok(Self {
            path: path.into(),
            partial,
            file,
            width,
            vocab_size,
            tokenizer,
            tokens: 0,
            ends: Vec::new(),
            crc: Hasher::new(),
        })
    }

    /// Appends a document.
    ///
    /// # Errors
    /// When the disk refuses, or an id is not in the vocabulary.
    pub fn push(&mut self, ids: &[u32]) -> Result<(), TextError> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            let reason = format!("id {id} is outside the vocabulary of {}", self.vocab_size);
            return Err(TextError::content(&self.path, reason));
        }
        let bytes: Vec<u8> = match self.width {
            2 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
            _ => ids.iter().flat_map(|&id| id.to_le_bytes()).collect(),
        };
        self.crc.update(&bytes);
        self.file.write_all(&bytes).map_err(TextError::io(&self.partial))?;
        self.tokens += ids.len() as u64;
        self.ends.push(self.tokens);
        Ok(())
    }

    /// Finishes the file and gives it its name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self) -> Result<(), TextError> {
        self.close()
    }

    fn close(&mut self) -> Result<(), TextError> {
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        let written = HEADER as u64 + self.width as u64 * self.tokens;
        let padding = (written.next_multiple_of(8) - written) as usize;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        for value in [VERSION, self.width as u32, self.vocab_size as u32, self.tokenizer] {
            header.extend_from_slice(&value.to_le_bytes());
        }
        for value in [self.tokens, self.ends.len() as u64] {
            header.extend_from_slice(&value.to_le_bytes());
        }
        header.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        header.extend_from_slice(&crc(&ends).to_le_bytes());
        header.resize(60, 0);
        let check = crc(&header);
        header.extend_from_slice(&check.to_le_bytes());
        let mut write = || {
            self.file.write_all(&[0; 8][..padding])?;
            self.file.write_all(&ends)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        write().map_err(TextError::io(&self.partial))?;
        std::fs::rename(&self.partial, &self.path).map_err(TextError::io(&self.path))
    }
}

impl Drop for TokenFileWriter {
    fn drop(&mut self) {
        // renamed by now, unless something failed
        let _ = std::fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn documents_round_trip_at_both_widths() {
        for vocab in [300, 70_000] {
            let (_dir, path) = sample(vocab);
            let file = TokenFile::open(&path).unwrap();
            assert_eq!((file.len(), file.total_tokens(), file.vocab_size()), (3, 5, vocab));
            let lengths: Vec<_> = (0..3).map(|i| file.document_len(i)).collect();
            assert_eq!(lengths, [3, 0, 2]);
            let mut ids = Vec::new();
            file.read(0, 1..3, &mut ids);
            file.read(2, 0..2, &mut ids);
            assert_eq!(ids, [6, 7, 8, vocab as u32 - 1]);
        }
    }

    #[test]
    fn any_flipped_byte_and_any_cut_is_noticed() {
        let (_dir, path) = sample(300);
        let good = std::fs::read(&path).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            // two bytes of padding between ids and ends carry nothing
            let padding = (HEADER + 10..HEADER + 16).contains(&i);
            assert_eq!(TokenFile::open(&path).is_err(), !padding, "byte {i}");
            std::fs::write(&path, &good[..i]).unwrap();
            let error = TokenFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("a.tok"), "{error}");
        }
    }

    #[test]
    fn a_header_that_lies_under_a_good_checksum_is_refused() {
        let (_dir, path) = sample(300);
        let good = std::fs::read(&path).unwrap();
        let lie = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            let ends = crc(&bad[good.len() - 24..]).to_le_bytes();
            bad[44..48].copy_from_slice(&ends);
            let header = crc(&bad[..60]).to_le_bytes();
            bad[60..64].copy_from_slice(&header);
            std::fs::write(&path, &bad).unwrap();
            TokenFile::open(&path).unwrap_err().to_string()
        };
        assert!(lie(8, &2_u32.to_le_bytes()).contains("version 2"));
        assert!(lie(12, &3_u32.to_le_bytes()).contains("ids of 3 bytes"));
        assert!(lie(24, &u64::MAX.to_le_bytes()).contains("cut short"));
        assert!(lie(32, &u64::MAX.to_le_bytes()).contains("cut short"));
        let first_end = good.len() - 24;
        assert!(lie(first_end, &9_u64.to_le_bytes()).contains("out of order"));
        std::fs::write(
            &path,
            b"a text file, not one of ids, and long enough to hold a header of 64",
        )
        .unwrap();
        assert!(TokenFile::open(&path).unwrap_err().to_string().contains("not a token file"));
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
