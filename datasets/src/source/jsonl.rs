//! Documents of a JSONL file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use block_transformer_files::FileError;

use super::text::utf8;
use crate::error::DatasetError;

/// Reads the `text` of each line.
pub(super) struct JsonlReader<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    /// Lines read.
    line: usize,
    /// Bytes read.
    offset: usize,
}

#[derive(serde::Deserialize)]
struct Line {
    text: String,
}

impl<'a> JsonlReader<'a> {
    pub(super) fn new(path: &'a Path, reader: BufReader<File>) -> Self {
        Self { path, reader, line: 0, offset: 0 }
    }

    /// Returns the text of the next line, empty for a blank line; `None` at the end.
    fn read(&mut self) -> Result<Option<String>, DatasetError> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes).map_err(FileError::read(self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        let line = utf8(self.path, self.offset, bytes)?;
        self.offset += read;
        if line.trim().is_empty() {
            return Ok(Some(String::new()));
        }
        let line: Line = serde_json::from_str(&line).map_err(|e| {
            // the message ends with a position; its line is always 1, because each line is parsed
            // alone
            let message = e.to_string();
            let reason = message.split(" at line ").next().unwrap_or_default().to_string();
            let path = self.path.into();
            DatasetError::JsonLine { path, line: self.line, column: e.column(), reason }
        })?;
        Ok(Some(line.text))
    }
}

impl Iterator for JsonlReader<'_> {
    type Item = Result<String, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read().transpose()? {
                Ok(text) if text.trim().is_empty() => {}
                other => return Some(other),
            }
        }
    }
}
