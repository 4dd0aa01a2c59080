//! Documents of a text file.

use std::io::{BufRead, Cursor, Read};
use std::path::{Path, PathBuf};

use block_transformer_files::FileError;

use super::input::Input;
use crate::error::DatasetError;

/// Text files up to this size, in bytes, are divided at separators only.
const LARGE_FILE: u64 = 4 << 20;

/// The minimum size, in bytes, at which a large file is divided at a blank line.
const MIN_PART: usize = 1 << 20;

/// If a part of a large file reaches this size, in bytes, without a blank line, it is divided at a
/// line end; if it has no line end, at any whitespace.
const MAX_PART: usize = 4 * MIN_PART;

/// An upper bound on the size of a document of a large file, in bytes.
#[cfg(test)]
pub(super) const MAX_DOCUMENT: usize = MAX_PART + MIN_PART;

/// The line that separates documents.
const SEPARATOR: &[u8] = b"<|endoftext|>";

/// Converts `bytes`, which start at byte `offset` of `path`, to text.
pub(super) fn utf8(path: &Path, offset: u64, bytes: Vec<u8>) -> Result<String, DatasetError> {
    String::from_utf8(bytes).map_err(|e| {
        let byte = offset + e.utf8_error().valid_up_to() as u64;
        let reason = format!("invalid UTF-8 at byte {byte}; convert the file to UTF-8");
        DatasetError::invalid(path, reason)
    })
}

/// Reads a text file and divides it into documents, so that a large file does not have to fit into
/// memory as a whole.
pub(super) struct TextReader {
    path: PathBuf,
    reader: Input,
    /// Whether the file is also divided at places without a separator.
    large: bool,
    /// The largest document in bytes.
    max_document: u64,
    /// Bytes already read that belong to the next document.
    carry: Vec<u8>,
    /// Byte at which the next document starts.
    offset: u64,
    /// Whether the next byte to read starts a line.
    at_line_start: bool,
    done: bool,
}

impl TextReader {
    /// `size` is the size of the text in bytes; `None` if it is not known.
    pub(super) fn new(
        path: PathBuf,
        mut reader: Input,
        size: Option<u64>,
        max_document: u64,
    ) -> Result<Self, DatasetError> {
        let large = match size {
            Some(size) => size > LARGE_FILE,
            None => {
                let mut start = Vec::new();
                let read = reader.by_ref().take(LARGE_FILE + 1).read_to_end(&mut start);
                read.map_err(FileError::read(&path))?;
                let large = start.len() as u64 > LARGE_FILE;
                reader = Box::new(Cursor::new(start).chain(reader));
                large
            }
        };
        let carry = Vec::new();
        Ok(Self {
            path,
            reader,
            large,
            max_document,
            carry,
            offset: 0,
            at_line_start: true,
            done: false,
        })
    }

    /// Reads the next document.
    fn read(&mut self) -> Result<String, DatasetError> {
        let mut bytes = std::mem::take(&mut self.carry);
        let start = self.offset;
        let mut consumed = bytes.len();
        loop {
            let before = bytes.len();
            // at most one line, or a part of a very long line
            let read = self.reader.by_ref().take(MIN_PART as u64).read_until(b'\n', &mut bytes);
            let read = read.map_err(FileError::read(&self.path))?;
            consumed += read;
            if read == 0 {
                self.done = true;
                break;
            }
            let whole_line = self.at_line_start && (bytes.ends_with(b"\n") || read < MIN_PART);
            self.at_line_start = bytes.ends_with(b"\n");
            let line = bytes[before..].trim_ascii();
            if whole_line && line == SEPARATOR {
                bytes.truncate(before);
                break;
            }
            let blank = whole_line && line.is_empty() && bytes.len() >= MIN_PART;
            if self.large && (blank || (bytes.len() >= MAX_PART && self.at_line_start)) {
                break;
            }
            if self.large && bytes.len() >= MAX_PART {
                self.carry = bytes.split_off(cut(&bytes));
                break;
            }
        }
        if bytes.len() as u64 > self.max_document {
            let place = format!("{}: the document at byte {start}", self.path.display());
            return Err(DatasetError::LongDocument { place, limit: self.max_document });
        }
        self.offset += (consumed - self.carry.len()) as u64;
        utf8(&self.path, start, bytes)
    }
}

/// Returns where to divide bytes that contain no line end: after the last whitespace, otherwise
/// between two characters.
fn cut(bytes: &[u8]) -> usize {
    let whitespace = bytes.iter().rposition(u8::is_ascii_whitespace).map(|at| at + 1);
    let starts_character = |&byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    whitespace.or_else(|| bytes.iter().rposition(starts_character)).unwrap_or(bytes.len())
}

impl Iterator for TextReader {
    type Item = Result<String, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let document = self.read();
        self.done |= document.is_err();
        Some(document)
    }
}
