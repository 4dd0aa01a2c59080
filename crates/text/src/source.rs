//! Documents of a corpus, one at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::TextError;

/// A larger text file becomes several documents of about this many bytes, cut at blank lines, so
/// that no document has to fit in memory.
const PIECE: usize = 1 << 20;

/// A line that separates documents of a text file.
const SEPARATOR: &str = "<|endoftext|>";

/// Where documents come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSource {
    files: Vec<PathBuf>,
}

impl DocumentSource {
    /// The documents at `path`: a text file (split at lines `<|endoftext|>`, and every MiB or so at
    /// a blank line), a `.jsonl` file (the `text` of each line), or a folder of such files.
    ///
    /// # Errors
    /// When the path cannot be read or holds no file.
    pub fn open(path: &Path) -> Result<Self, TextError> {
        let meta = std::fs::metadata(path).map_err(TextError::io(path))?;
        if !meta.is_dir() {
            return Ok(Self { files: vec![path.into()] });
        }
        let visible = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
        };
        let mut files = Vec::new();
        for entry in WalkDir::new(path).sort_by_file_name().into_iter().filter_entry(visible) {
            let entry = entry.map_err(|e| TextError::content(path, e.to_string()))?;
            if entry.file_type().is_file() {
                files.push(entry.into_path());
            }
        }
        if files.is_empty() {
            return Err(TextError::content(path, "the folder holds no file; give one with text"));
        }
        Ok(Self { files })
    }

    /// One document a file, in this order.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { files }
    }

    /// The files read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of all files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn bytes(&self) -> Result<u64, TextError> {
        self.files
            .iter()
            .map(|path| Ok(std::fs::metadata(path).map_err(TextError::io(path))?.len()))
            .sum()
    }

    /// The documents, in order; stops at the first error.
    pub fn documents(&self) -> impl Iterator<Item = Result<String, TextError>> + '_ {
        self.files.iter().flat_map(|path| {
            let is_jsonl = path.extension().is_some_and(|e| e == "jsonl");
            match File::open(path) {
                Err(source) => {
                    let error = TextError::Io { path: path.clone(), source };
                    Box::new(std::iter::once(Err(error))) as Box<dyn Iterator<Item = _>>
                }
                Ok(file) if is_jsonl => Box::new(jsonl(path, BufReader::new(file))),
                Ok(file) => {
                    Box::new(Pieces { path, reader: BufReader::new(file), offset: 0, done: false })
                }
            }
        })
    }
}

fn jsonl<'a>(
    path: &'a Path,
    reader: BufReader<File>,
) -> impl Iterator<Item = Result<String, TextError>> + 'a {
    #[derive(serde::Deserialize)]
    struct Row {
        text: String,
    }
    reader.lines().enumerate().filter_map(move |(i, line)| {
        let line = match line.map_err(TextError::io(path)) {
            Ok(line) if line.trim().is_empty() => return None,
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let row = serde_json::from_str::<Row>(&line).map(|row| row.text);
        Some(row.map_err(|e| {
            let reason =
                format!("line {}: {e}; each line must be an object with a \"text\"", i + 1);
            TextError::content(path, reason)
        }))
    })
}

/// Documents of a text file.
struct Pieces<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    offset: usize,
    done: bool,
}

impl Pieces<'_> {
    fn read(&mut self) -> Result<Option<String>, TextError> {
        let mut bytes = Vec::new();
        let start = self.offset;
        loop {
            let before = bytes.len();
            // a line, but never much more than a piece, whatever the file holds
            let limit = (4 * PIECE) as u64;
            let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes);
            let read = read.map_err(TextError::io(self.path))?;
            self.offset += read;
            let line = bytes[before..].trim_ascii();
            if line == SEPARATOR.as_bytes() {
                bytes.truncate(before);
                break;
            }
            if read == 0 {
                self.done = true;
                break;
            }
            let blank = line.is_empty() && bytes.len() >= PIECE;
            if blank || (bytes.len() >= 4 * PIECE && bytes.ends_with(b"\n")) {
                break;
            }
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = start + e.utf8_error().valid_up_to();
            TextError::content(
                self.path,
                format!("invalid UTF-8 at byte {at}; convert it to UTF-8"),
            )
        })?;
        Ok((!text.trim().is_empty()).then_some(text))
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<String, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.read() {
                Ok(None) => {}
                Ok(Some(text)) => return Some(Ok(text)),
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let source = DocumentSource::open(dir.path()).unwrap();
        source.documents().collect::<Result<_, _>>().map_err(|e| e.to_string())
    }

    #[test]
    fn text_files_split_at_separators_and_keep_every_byte() {
        let docs = read("a.txt", b"one\n\ntwo\n<|endoftext|>\nthree").unwrap();
        assert_eq!(docs, ["one\n\ntwo\n", "three"]);
        let long = "word word word word\n\n".repeat(200_000);
        let docs = read("a.txt", long.as_bytes()).unwrap();
        assert_eq!(docs.len(), 5);
        assert_eq!(docs.concat(), long);
    }

    #[test]
    fn bad_lines_and_bytes_are_named() {
        assert_eq!(
            read("a.jsonl", b"{\"text\": \"x\"}\n\n{\"text\": \"y\"}\n").unwrap(),
            ["x", "y"]
        );
        let error = read("a.jsonl", b"{\"text\": \"x\"}\n{\"txt\": 1}\n").unwrap_err();
        assert!(error.contains("a.jsonl") && error.contains("line 2"), "{error}");
        let error = read("b.txt", b"abc\xFFdef").unwrap_err();
        assert!(error.contains("b.txt") && error.contains("byte 3"), "{error}");
    }
}
