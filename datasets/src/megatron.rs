//! Megatron's `.idx`/`.bin` pairs, the format of the tokenized Pile that Pythia was trained on.
//!
//! The index, little-endian: magic, version (u64, 1), type of the ids (u8), number of sequences
//! (u64), number of document bounds (u64); then the length of each sequence (i32), the byte offset
//! of each sequence in the `.bin` (i64), and each document bound (i64): the index of the document's
//! first sequence. A document is the sequences between two bounds; they are adjacent in the `.bin`.

use std::ops::Range;
use std::path::Path;

use block_transformer_text::EOS;
use memmap2::Mmap;

use crate::documents::{Documents, append_ids, integer, map};
use crate::error::DatasetError;

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
/// Bytes of the index before the sequence lengths.
const HEADER: usize = 34;

/// Number of documents examined to find out whether documents end with EOS.
const SAMPLE: usize = 64;

/// An open pair. If the documents end with EOS (Megatron's option `--append-eod`), the EOS is left
/// out, because [`Documents`] never include it; packing adds it.
#[derive(Debug)]
pub(crate) struct MegatronFile {
    index: Mmap,
    data: Mmap,
    /// Bytes per id, 2 or 4.
    width: usize,
    sequences: usize,
    documents: usize,
    ends_in_eos: bool,
}

impl MegatronFile {
    /// Opens `NAME.idx` and `NAME.bin`. `path` is either of them, or `NAME`.
    ///
    /// # Errors
    /// If a file cannot be read or has another format, or the index refers to bytes or sequences
    /// that do not exist.
    pub(crate) fn open(path: &Path) -> Result<Self, DatasetError> {
        let with_extension = |extension: &str| match path.extension().and_then(|e| e.to_str()) {
            Some("idx" | "bin") => path.with_extension(extension),
            // a name can contain dots: pile_0.87_text_document
            _ => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                path.with_file_name(format!("{name}.{extension}"))
            }
        };
        let (index_path, data_path) = (with_extension("idx"), with_extension("bin"));
        let (index, data) = (map(&index_path)?, map(&data_path)?);
        let invalid = |reason: &str| Err(DatasetError::invalid(&index_path, reason));
        if index.len() < HEADER || &index[..9] != MAGIC {
            return invalid("not a Megatron index");
        }
        let (version, kind) = (integer(&index, 9, 8), index[17]);
        if version != 1 {
            return invalid(&format!("version {version} of the format; only 1 is supported"));
        }
        let width = match kind {
            8 => 2,
            4 => 4,
            _ => {
                return invalid(&format!("id type {kind}; only u16 (8) and i32 (4) are supported"));
            }
        };
        let (sequences, bounds) = (integer(&index, 18, 8), integer(&index, 26, 8));
        let needed = sequences.checked_mul(12).zip(bounds.checked_mul(8));
        let needed = needed.and_then(|(s, b)| s.checked_add(b)?.checked_add(HEADER));
        if needed.is_none_or(|needed| index.len() < needed) {
            return invalid("the index is cut short; copy it again");
        }
        let documents = bounds.saturating_sub(1);
        let mut pair = Self { index, data, width, sequences, documents, ends_in_eos: false };
        for sequence in 0..sequences {
            if pair.sequence_end(sequence).is_none_or(|end| end > pair.data.len()) {
                return Err(DatasetError::invalid(&data_path, "shorter than its index says"));
            }
        }
        for document in 0..documents {
            let (first, last) = (pair.bound(document), pair.bound(document + 1));
            let in_order = first <= last && last <= sequences;
            let mut inner = first.saturating_add(1)..last;
            if !in_order || !inner.all(|i| pair.sequence_end(i - 1) == Some(pair.offset(i))) {
                let reason = format!("document {document} is not a range of adjacent sequences");
                return invalid(&reason);
            }
        }
        pair.ends_in_eos = pair.sampled_documents_end_in_eos();
        Ok(pair)
    }

    /// The first sequence of document `document`.
    fn bound(&self, document: usize) -> usize {
        integer(&self.index, HEADER + 12 * self.sequences + 8 * document, 8)
    }

    /// The byte at which `sequence` starts.
    fn offset(&self, sequence: usize) -> usize {
        integer(&self.index, HEADER + 4 * self.sequences + 8 * sequence, 8)
    }

    /// The byte after `sequence`; `None` if it exceeds `usize`.
    fn sequence_end(&self, sequence: usize) -> Option<usize> {
        let length = integer(&self.index, HEADER + 4 * sequence, 4);
        self.offset(sequence).checked_add(self.width * length)
    }

    /// The bytes of a document, EOS included.
    fn bytes(&self, document: usize) -> &[u8] {
        let (first, last) = (self.bound(document), self.bound(document + 1));
        if first == last {
            return &[];
        }
        &self.data[self.offset(first)..self.sequence_end(last - 1).unwrap_or_default()]
    }

    /// Returns whether documents sampled over the whole file end with EOS. `--append-eod` applies
    /// to all documents or to none.
    fn sampled_documents_end_in_eos(&self) -> bool {
        let step = self.documents.div_ceil(SAMPLE).max(1);
        let mut sample = (0..self.documents).step_by(step).map(|i| self.bytes(i)).peekable();
        sample.peek().is_some()
            && sample.all(|ids| {
                let last = ids.len().checked_sub(self.width);
                last.is_some_and(|at| integer(ids, at, self.width) == EOS as usize)
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
        append_ids(bytes, self.width, out);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Writes a pair with the given sequences and document bounds.
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
        let mut all = vec![Vec::new(); file.len()];
        all.iter_mut().enumerate().for_each(|(i, ids)| file.read(i, 0..file.document_len(i), ids));
        all
    }

    #[test]
    fn documents_are_ranges_of_sequences() {
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
    fn eos_is_left_out_if_all_documents_end_with_it() {
        let (_dir, path) = pair(&[&[10, 11, 0], &[12, 0]], &[0, 1, 2]);
        assert_eq!(all(&MegatronFile::open(&path).unwrap()), [vec![10, 11], vec![12]]);
        let (_dir, path) = pair(&[&[10, 11, 0], &[12, 13]], &[0, 1, 2]);
        assert_eq!(all(&MegatronFile::open(&path).unwrap()), [vec![10, 11, 0], vec![12, 13]]);
    }

    #[test]
    fn a_bound_of_all_ones_is_refused() {
        let (_dir, path) = pair(&[&[10, 11]], &[u64::MAX, 1]);
        let error = MegatronFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("document 0 is not a range"), "{error}");
    }

    #[test]
    fn damaged_files_and_other_formats_are_refused() {
        let (_dir, path) = pair(&[&[10, 11], &[12, 13]], &[0, 1, 2]);
        let error = || MegatronFile::open(&path).unwrap_err().to_string();
        let index = std::fs::read(&path).unwrap();
        std::fs::write(&path, &index[..index.len() - 1]).unwrap();
        assert!(error().contains("cut short"), "{}", error());
        // version, id type, counts with a sum that overflows, a bound after the last sequence
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
