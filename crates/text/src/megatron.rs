//! Megatron's `.idx`/`.bin` pair, as the tokenized Pile of the Pythia suite comes.
//!
//! The index, little-endian: magic, u64 version 1, u8 type of the ids, u64 sequences, u64 document
//! bounds, an i32 length and an i64 byte offset for each sequence, and for each document bound the
//! i64 sequence it lies before. A document is the sequences between two bounds, which stand side by
//! side in the `.bin`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::{Documents, EOS, TextError};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const HEADER: usize = 34;

/// Documents looked at to tell whether they were written with EOS at their ends.
const SAMPLE: usize = 64;

/// An open pair. EOS at the ends of documents, which Megatron's `--append-eod` writes, is left out,
/// as in every [`Documents`]: packing adds it.
#[derive(Debug)]
pub struct MegatronFile {
    index: Mmap,
    data: Mmap,
    width: usize,
    sequences: usize,
    documents: usize,
    ends_in_eos: bool,
}

impl MegatronFile {
    /// Opens `NAME.idx` (or `NAME.bin`, or `NAME`) and the file beside it.
    ///
    /// # Errors
    /// When a file is missing, is not of this format, or points past its partner's end.
    pub fn open(path: &Path) -> Result<Self, TextError> {
        let map = |path: &Path| {
            let file = File::open(path).map_err(TextError::io(path))?;
            // SAFETY: read only; a file changed meanwhile is a broken input.
            unsafe { Mmap::map(&file) }.map_err(TextError::io(path))
        };
        let beside = |extension: &str| match path.extension().and_then(|e| e.to_str()) {
            Some("idx" | "bin") => path.with_extension(extension),
            // a name may hold dots: pile_0.87_text_document
            _ => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                path.with_file_name(format!("{name}.{extension}"))
            }
        };
        let (index_path, data_path) = (beside("idx"), beside("bin"));
        let (index, data) = (map(&index_path)?, map(&data_path)?);
        let bad = |reason: &str| TextError::content(&index_path, reason);
        if index.len() < HEADER || &index[..9] != MAGIC {
            return Err(bad("not a Megatron index"));
        }
        let version = number(&index, 9, 8);
        if version != 1 {
            return Err(bad(&format!("version {version} where 1 is read")));
        }
        let width = match index[17] {
            8 => 2,
            4 => 4,
            other => return Err(bad(&format!("id type {other}; u16 (8) and i32 (4) are read"))),
        };
        let (sequences, bounds) = (number(&index, 18, 8), number(&index, 26, 8));
        let needed = sequences.checked_mul(12).zip(bounds.checked_mul(8));
        let needed = needed.and_then(|(s, b)| s.checked_add(b)?.checked_add(HEADER));
        if needed.is_none_or(|needed| index.len() < needed) {
            return Err(bad("the index is cut short; copy it again"));
        }
        let documents = bounds.saturating_sub(1);
        let mut this = Self { index, data, width, sequences, documents, ends_in_eos: false };
        for sequence in 0..sequences {
            if this.sequence_end(sequence).is_none_or(|end| end > this.data.len()) {
                return Err(TextError::content(&data_path, "shorter than its index says"));
            }
        }
        for document in 0..documents {
            let (first, last) = (this.bound(document), this.bound(document + 1));
            let in_order = first <= last && last <= sequences;
            if !in_order
                || !(first + 1..last).all(|i| this.sequence_end(i - 1) == Some(this.pointer(i)))
            {
                return Err(bad(&format!("document {document} is not a run of sequences")));
            }
        }
        this.ends_in_eos = this.sample_ends();
        Ok(this)
    }

    fn bound(&self, document: usize) -> usize {
        number(&self.index, HEADER + 12 * self.sequences + 8 * document, 8)
    }

    fn pointer(&self, sequence: usize) -> usize {
        number(&self.index, HEADER + 4 * self.sequences + 8 * sequence, 8)
    }

    fn sequence_end(&self, sequence: usize) -> Option<usize> {
        let length = number(&self.index, HEADER + 4 * sequence, 4);
        self.pointer(sequence).checked_add(self.width * length)
    }

    /// Bytes of a document, EOS included.
    fn bytes(&self, document: usize) -> &[u8] {
        let (first, last) = (self.bound(document), self.bound(document + 1));
        if first == last {
            return &[];
        }
        &self.data[self.pointer(first)..self.sequence_end(last - 1).unwrap_or_default()]
    }

    /// Whether documents spread over the file all end in EOS: `--append-eod` is for all or none.
    fn sample_ends(&self) -> bool {
        let step = self.documents.div_ceil(SAMPLE).max(1);
        let mut sample = (0..self.documents).step_by(step).map(|i| self.bytes(i)).peekable();
        sample.peek().is_some()
            && sample.all(|ids| {
                let last = ids.len().checked_sub(self.width);
                last.is_some_and(|at| number(ids, at, self.width) == EOS as usize)
            })
    }
}

impl Documents for MegatronFile {
    fn len(&self) -> usize {
        self.documents
    }

    fn document_len(&self, index: usize) -> usize {
        let ids = self.bytes(index).len() / self.width;
        ids.saturating_sub(usize::from(self.ends_in_eos))
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>) {
        let bytes = &self.bytes(index)[self.width * range.start..self.width * range.end];
        if self.width == 2 {
            out.extend(bytes.as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))));
        } else {
            out.extend(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)));
        }
    }
}

/// Little-endian number of `width` bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A pair with sequences of these ids, and documents between these bounds.
    pub(crate) fn pair(sequences: &[&[u16]], bounds: &[u64]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pile_0.87_text.idx");
        let mut index = MAGIC.to_vec();
        index.extend(1_u64.to_le_bytes());
        index.push(8);
        index.extend((sequences.len() as u64).to_le_bytes());
        index.extend((bounds.len() as u64).to_le_bytes());
        index.extend(sequences.iter().flat_map(|ids| (ids.len() as u32).to_le_bytes()));
        let offsets = sequences.iter().scan(0, |at, ids| {
            *at += 2 * ids.len() as u64;
            Some(*at - 2 * ids.len() as u64)
        });
        index.extend(offsets.flat_map(u64::to_le_bytes));
        index.extend(bounds.iter().flat_map(|n| n.to_le_bytes()));
        std::fs::write(&path, &index).unwrap();
        let data: Vec<u8> = sequences.concat().iter().flat_map(|n| n.to_le_bytes()).collect();
        std::fs::write(path.with_extension("bin"), &data).unwrap();
        (dir, path)
    }

    fn all(file: &MegatronFile) -> Vec<Vec<u32>> {
        let one = |i| {
            let mut ids = Vec::new();
            file.read(i, 0..file.document_len(i), &mut ids);
            ids
        };
        (0..file.len()).map(one).collect()
    }

    #[test]
    fn documents_are_runs_of_sequences() {
        let (_dir, path) = pair(&[&[10, 11], &[50_000, 13, 14], &[15]], &[0, 1, 1, 3]);
        for name in [path.clone(), path.with_extension("bin"), path.with_extension("")] {
            let file = MegatronFile::open(&name).unwrap();
            assert_eq!(all(&file), [vec![10, 11], vec![], vec![50_000, 13, 14, 15]]);
            assert_eq!(file.total_tokens(), 6);
            let mut ids = Vec::new();
            file.read(2, 2..4, &mut ids);
            assert_eq!(ids, [14, 15]);
        }
    }

    #[test]
    fn eos_at_the_ends_of_all_documents_is_left_to_packing() {
        let (_dir, path) = pair(&[&[10, 11, 0], &[12, 0]], &[0, 1, 2]);
        assert_eq!(all(&MegatronFile::open(&path).unwrap()), [vec![10, 11], vec![12]]);
        let (_dir, path) = pair(&[&[10, 11, 0], &[12, 13]], &[0, 1, 2]);
        assert_eq!(all(&MegatronFile::open(&path).unwrap()), [vec![10, 11, 0], vec![12, 13]]);
    }

    #[test]
    fn cut_and_foreign_files_are_refused() {
        let (_dir, path) = pair(&[&[10, 11], &[12, 13]], &[0, 1, 2]);
        let error = || MegatronFile::open(&path).unwrap_err().to_string();
        let index = std::fs::read(&path).unwrap();
        std::fs::write(&path, &index[..index.len() - 1]).unwrap();
        assert!(error().contains("cut short"), "{}", error());
        // version, type, counts too large to add up, a bound past the sequences
        let changes: [(usize, u8, &str); 4] = [
            (9, 2, "version 2"),
            (17, 6, "id type 6"),
            (33, 255, "cut short"),
            (index.len() - 8, 9, "document 1"),
        ];
        for (at, byte, reason) in changes {
            let mut bad = index.clone();
            bad[at] = byte;
            std::fs::write(&path, &bad).unwrap();
            assert!(error().contains(reason), "{}", error());
        }
        std::fs::write(&path, &index).unwrap();
        std::fs::write(path.with_extension("bin"), [0; 6]).unwrap();
        assert!(error().contains("pile_0.87_text.bin: shorter"), "{}", error());
        std::fs::write(&path, b"text").unwrap();
        assert!(error().contains("not a Megatron index"), "{}", error());
    }
}
