//! Megatron's `.idx`/`.bin` pair, as the tokenized Pile of the Pythia suite comes.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::{Documents, TextError};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const HEADER: usize = 34;

/// An open pair. Each sequence of the index is a document.
#[derive(Debug)]
pub struct MegatronFile {
    index: Mmap,
    data: Mmap,
    width: usize,
    sequences: usize,
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
        let (index_path, data_path) = (path.with_extension("idx"), path.with_extension("bin"));
        let (index, data) = (map(&index_path)?, map(&data_path)?);
        let bad = |reason: &str| TextError::content(&index_path, reason);
        if index.len() < HEADER || &index[..9] != MAGIC {
            return Err(bad("not a Megatron index"));
        }
        let width = match index[17] {
            8 => 2,
            4 => 4,
            other => return Err(bad(&format!("id type {other}; u16 (8) and i32 (4) are read"))),
        };
        let sequences = number(&index, 18, 8);
        let documents = number(&index, 26, 8);
        let needed = sequences.checked_mul(12).and_then(|n| n.checked_add(HEADER + 8 * documents));
        if needed.is_none_or(|needed| index.len() < needed) {
            return Err(bad("the index is cut short"));
        }
        let this = Self { index, data, width, sequences };
        let fits = |i: usize| {
            let bytes = this.width * this.document_len(i);
            this.pointer(i).checked_add(bytes).is_some_and(|end| end <= this.data.len())
        };
        if !(0..sequences).all(fits) {
            return Err(TextError::content(&data_path, "shorter than its index says"));
        }
        Ok(this)
    }

    fn pointer(&self, index: usize) -> usize {
        number(&self.index, HEADER + 4 * self.sequences + 8 * index, 8)
    }
}

impl Documents for MegatronFile {
    fn len(&self) -> usize {
        self.sequences
    }

    fn document_len(&self, index: usize) -> usize {
        number(&self.index, HEADER + 4 * index, 4)
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>) {
        let start = self.pointer(index) + self.width * range.start;
        let ids = range.clone().map(|i| i - range.start);
        out.extend(ids.map(|i| number(&self.data, start + self.width * i, self.width) as u32));
    }
}

/// Little-endian number of `width` bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_read_and_a_short_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pile.idx");
        let mut index = MAGIC.to_vec();
        index.extend(1_u64.to_le_bytes());
        index.push(8);
        index.extend(2_u64.to_le_bytes());
        index.extend(3_u64.to_le_bytes());
        index.extend([2_u32, 3].iter().flat_map(|n| n.to_le_bytes()));
        index.extend([0_u64, 4].iter().flat_map(|n| n.to_le_bytes()));
        index.extend([0_u64, 1, 2].iter().flat_map(|n| n.to_le_bytes()));
        std::fs::write(&path, &index).unwrap();
        let data: Vec<u8> =
            [10_u16, 11, 50_000, 13, 14].iter().flat_map(|n| n.to_le_bytes()).collect();
        std::fs::write(path.with_extension("bin"), &data).unwrap();
        let file = MegatronFile::open(&path).unwrap();
        assert_eq!((file.len(), file.total_tokens()), (2, 5));
        let mut ids = Vec::new();
        file.read(1, 0..3, &mut ids);
        file.read(0, 1..2, &mut ids);
        assert_eq!(ids, [50_000, 13, 14, 11]);
        std::fs::write(path.with_extension("bin"), &data[..8]).unwrap();
        assert!(MegatronFile::open(&path).unwrap_err().to_string().contains("pile.bin"));
    }
}
