//! Random access to tokenized documents.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use block_transformer_files::FileError;
use memmap2::Mmap;

/// Tokenized documents that can be read in any order. Their ids do not include the EOS that ends a
/// document in a window.
pub trait Documents: Send + Sync {
    /// The number of documents.
    fn len(&self) -> usize;

    /// Returns whether there are no documents.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of ids of document `index`.
    fn document_len(&self, index: usize) -> usize;

    /// Appends the ids `range` of document `index` to `out`.
    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>);

    /// The number of ids of all documents.
    fn total_tokens(&self) -> usize {
        (0..self.len()).map(|i| self.document_len(i)).sum()
    }
}

/// Maps the file at `path` into memory.
pub(crate) fn map(path: &Path) -> Result<Mmap, FileError> {
    let file = File::open(path).map_err(FileError::read(path))?;
    // SAFETY: the map is read only. Token files are replaced by renaming, never modified in place;
    // a file of another program that changes in the meantime is an invalid input.
    unsafe { Mmap::map(&file) }.map_err(FileError::read(path))
}

/// The little-endian integer of `width` bytes at `at`.
pub(crate) fn integer(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte))
}

/// Appends little-endian ids of `width` bytes each, 2 or 4, to `out`.
pub(crate) fn append_ids(bytes: &[u8], width: usize, out: &mut Vec<u32>) {
    if width == 2 {
        out.extend(bytes.as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))));
    } else {
        out.extend(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)));
    }
}
