//! Writing token files.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, NewFile};
use crc32fast::Hasher;

use super::header::{Header, SIZE};
use crate::error::DatasetError;

/// Writes a token file document by document. The file appears only when [`finish`](Self::finish) is
/// called.
#[derive(Debug)]
pub(crate) struct TokenFileWriter {
    path: PathBuf,
    file: NewFile,
    /// The header, without what is known at the end only.
    header: Header,
    /// The number of ids up to the end of each document.
    ends: Vec<u64>,
    ids_checksum: Hasher,
}

impl TokenFileWriter {
    /// Starts a file of ids below `vocab_size` from the tokenizer with the fingerprint `tokenizer`.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub(crate) fn create(
        path: &Path,
        vocab_size: usize,
        tokenizer: u32,
    ) -> Result<Self, DatasetError> {
        let mut file = NewFile::create(path)?;
        file.write_all(&[0; SIZE]).map_err(FileError::write(path))?;
        let (width, vocab_size) = (if vocab_size <= 1 << 16 { 2 } else { 4 }, vocab_size as u32);
        let header = Header { width, vocab_size, tokenizer, ..Header::default() };
        Ok(Self { path: path.into(), file, header, ends: Vec::new(), ids_checksum: Hasher::new() })
    }

    /// Appends a document.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, or the file cannot be written.
    pub(crate) fn push(&mut self, ids: &[u32]) -> Result<(), DatasetError> {
        if let Some(&id) = ids.iter().find(|&&id| id >= self.header.vocab_size) {
            let (path, document) = (self.path.clone(), self.ends.len());
            let vocab_size = self.header.vocab_size as usize;
            return Err(DatasetError::UnknownId { path, document, id, vocab_size });
        }
        let bytes: Vec<u8> = match self.header.width {
            2 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
            _ => ids.iter().flat_map(|&id| id.to_le_bytes()).collect(),
        };
        self.ids_checksum.update(&bytes);
        self.file.write_all(&bytes).map_err(FileError::write(&self.path))?;
        self.header.tokens += ids.len() as u64;
        self.ends.push(self.header.tokens);
        Ok(())
    }

    /// Completes the file and gives it its name. Returns its size in bytes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn finish(mut self) -> Result<u64, DatasetError> {
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        let written = SIZE as u64 + u64::from(self.header.width) * self.header.tokens;
        let padding = (written.next_multiple_of(8) - written) as usize;
        let header = Header {
            documents: self.ends.len() as u64,
            ids_checksum: self.ids_checksum.finalize(),
            ends_checksum: crc32fast::hash(&ends),
            ..self.header
        };
        let mut write = || {
            self.file.write_all(&[0; 8][..padding])?;
            self.file.write_all(&ends)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header.encode())
        };
        write().map_err(FileError::write(&self.path))?;
        self.file.commit()?;
        Ok(written.next_multiple_of(8) + ends.len() as u64)
    }
}
