//! Documents of a JSONL file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use block_transformer_files::FileError;

use super::text::utf8;
use crate::error::DatasetError;

#[derive(serde::Deserialize)]
struct JsonLine {
    text: String,
}

/// Reads the `text` of each line; it is empty for a blank line.
pub(super) fn texts(
    path: &Path,
    reader: BufReader<File>,
) -> impl Iterator<Item = Result<String, DatasetError>> {
    let mut offset = 0;
    reader.split(b'\n').enumerate().map(move |(index, bytes)| {
        let bytes = bytes.map_err(FileError::read(path))?;
        let start = offset;
        offset += bytes.len() + 1;
        let line = utf8(path, start, bytes)?;
        if line.trim().is_empty() {
            return Ok(String::new());
        }
        let json = serde_json::from_str(&line);
        let JsonLine { text } = json.map_err(|e| {
            // the message ends with a position; its line is always 1, because each line is parsed
            // alone
            let message = e.to_string();
            let cause = message.split(" at line ").next().unwrap_or_default();
            let place = format!("{}:{}", path.display(), index + 1);
            let need = "each line must be an object with a \"text\"";
            let reason = format!("column {}: {cause}; {need}", e.column());
            DatasetError::InvalidFile { place, reason }
        })?;
        Ok(text)
    })
}
