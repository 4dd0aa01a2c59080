//! Documents of a JSONL file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use block_transformer_files::FileError;

use super::text::utf8;
use crate::error::DatasetError;

#[derive(serde::Deserialize)]
struct JsonLine {
    text: String,
}

/// The largest number of bytes in a line. A line is held in memory.
const MAX_LINE: u64 = 1 << 30;

/// Reads the `text` of each line; it is empty for a blank line.
pub(super) fn texts(
    path: &Path,
    reader: BufReader<File>,
) -> impl Iterator<Item = Result<String, DatasetError>> {
    let mut offset = 0;
    lines(reader, MAX_LINE).enumerate().map(move |(index, bytes)| {
        let bytes = bytes.map_err(FileError::read(path))?.ok_or_else(|| {
            let place = format!("{}:{}", path.display(), index + 1);
            let reason = "the line is longer than 1 GiB; give one document per line".into();
            DatasetError::InvalidFile { place, reason }
        })?;
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

/// The lines without their ends. A line of more than `most` bytes is `None`; it is the last one, and so is an error.
fn lines(mut reader: impl BufRead, most: u64) -> impl Iterator<Item = io::Result<Option<Vec<u8>>>> {
    let mut done = false;
    std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        let read = (!done).then(|| reader.by_ref().take(most + 1).read_until(b'\n', &mut bytes))?;
        let is_long = bytes.len() as u64 > most && !bytes.ends_with(b"\n");
        done = is_long || read.is_err();
        match read {
            Ok(0) => None,
            Ok(_) if is_long => Some(Ok(None)),
            Ok(_) => {
                bytes.pop_if(|byte| *byte == b'\n');
                Some(Ok(Some(bytes)))
            }
            Err(error) => Some(Err(error)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_first_that_is_too_long() {
        let read = |text: &str, most| {
            lines(text.as_bytes(), most)
                .map(|line| line.unwrap().map(|line| String::from_utf8(line).unwrap()))
                .collect::<Vec<_>>()
        };
        let line = |text: &str| Some(text.to_string());
        assert_eq!(read("ab\n\nabc", 3), [line("ab"), line(""), line("abc")]);
        assert_eq!(read("abc\n", 3), [line("abc")]);
        assert_eq!(read("ab\nabcd\nc\n", 3), [line("ab"), None]);
        assert!(read("", 3).is_empty());
    }
}
