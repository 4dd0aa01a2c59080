//! Documents of a corpus, one at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::TextError;

/// A text file of more than [`LARGE`] bytes becomes documents of about this many, cut at blank
/// lines, so that none has to fit in memory.
const PIECE: usize = 1 << 20;

/// A text file up to this size stays whole, whatever its separators leave of it.
const LARGE: u64 = 4 << 20;

/// Where a text without blank lines is cut at any line, and one without lines at any blank.
const HARD: usize = 4 * PIECE;

/// A line that separates documents of a text file.
const SEPARATOR: &[u8] = b"<|endoftext|>";

/// Where documents come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSource {
    files: Vec<PathBuf>,
    /// Each file is one document.
    whole: bool,
}

impl DocumentSource {
    /// The documents at `path`: a text file (split at lines `<|endoftext|>`; one of more than 4 MiB
    /// also at the first blank line after every MiB), a `.jsonl` file (the `text` of each line), or
    /// a folder of such files, sorted by path, hidden ones left out.
    ///
    /// # Errors
    /// When the path cannot be read or holds no file.
    pub fn open(path: &Path) -> Result<Self, TextError> {
        let meta = std::fs::metadata(path).map_err(TextError::io(path))?;
        if !meta.is_dir() {
            return Ok(Self { files: vec![path.into()], whole: false });
        }
        let visible = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
        };
        let mut files = Vec::new();
        let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
        for entry in walk.into_iter().filter_entry(visible) {
            let entry = entry.map_err(|e| TextError::content(path, e.to_string()))?;
            if entry.file_type().is_file() {
                files.push(entry.into_path());
            }
        }
        if files.is_empty() {
            return Err(TextError::content(path, "the folder holds no file; give one with text"));
        }
        Ok(Self { files, whole: false })
    }

    /// One document a file, in this order, whatever its size and content.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { files, whole: true }
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

    /// The documents, in order, blank ones left out; ends a file at its first error.
    pub fn documents(&self) -> impl Iterator<Item = Result<String, TextError>> + '_ {
        self.files.iter().flat_map(|path| {
            self.file(path).unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
        })
    }

    fn file<'a>(&self, path: &'a Path) -> Result<DocumentIter<'a>, TextError> {
        if self.whole {
            let bytes = std::fs::read(path).map_err(TextError::io(path))?;
            let text = utf8(path, 0, bytes).map(|text| (!text.trim().is_empty()).then_some(text));
            return Ok(Box::new(text.transpose().into_iter()));
        }
        let file = File::open(path).map_err(TextError::io(path))?;
        if path.extension().is_some_and(|e| e == "jsonl") {
            return Ok(Box::new(Rows { path, reader: BufReader::new(file), line: 0, offset: 0 }));
        }
        let large = file.metadata().map_err(TextError::io(path))?.len() > LARGE;
        Ok(Box::new(Pieces::new(path, BufReader::new(file), large)))
    }
}

type DocumentIter<'a> = Box<dyn Iterator<Item = Result<String, TextError>> + 'a>;

/// `bytes`, which start at byte `offset` of `path`, as text.
fn utf8(path: &Path, offset: usize, bytes: Vec<u8>) -> Result<String, TextError> {
    String::from_utf8(bytes).map_err(|e| {
        let at = offset + e.utf8_error().valid_up_to();
        TextError::content(path, format!("invalid UTF-8 at byte {at}; convert it to UTF-8"))
    })
}

/// Documents of a JSONL file.
struct Rows<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    line: usize,
    offset: usize,
}

#[derive(serde::Deserialize)]
struct Row {
    text: String,
}

impl Rows<'_> {
    /// The next line's text; none at the end.
    fn read(&mut self) -> Result<Option<String>, TextError> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes).map_err(TextError::io(self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        let line = utf8(self.path, self.offset, bytes)?;
        self.offset += read;
        if line.trim().is_empty() {
            return Ok(Some(String::new()));
        }
        let row: Row = serde_json::from_str(&line).map_err(|e| {
            let place = PathBuf::from(format!("{}:{}", self.path.display(), self.line));
            // serde counts lines of the row, which is one
            let what = e.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            let reason = format!(
                "column {}: {what}; each line must be an object with a \"text\"",
                e.column()
            );
            TextError::content(&place, reason)
        })?;
        Ok(Some(row.text))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<String, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read().transpose()? {
                Ok(text) if text.trim().is_empty() => {}
                other => return Some(other),
            }
        }
    }
}

/// Documents of a text file.
struct Pieces<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    /// Whether to cut it where no separator is.
    large: bool,
    /// Read, but of the next document.
    carry: Vec<u8>,
    /// Where the next document starts.
    offset: usize,
    /// Whether what is read next starts a line.
    line_start: bool,
    done: bool,
}

impl<'a> Pieces<'a> {
    fn new(path: &'a Path, reader: BufReader<File>, large: bool) -> Self {
        Self { path, reader, large, carry: Vec::new(), offset: 0, line_start: true, done: false }
    }

    fn read(&mut self) -> Result<Option<String>, TextError> {
        let mut bytes = std::mem::take(&mut self.carry);
        let start = self.offset;
        let mut consumed = bytes.len();
        loop {
            let before = bytes.len();
            // a line, but never more than a piece of it, whatever the file holds
            let read = self.reader.by_ref().take(PIECE as u64).read_until(b'\n', &mut bytes);
            let read = read.map_err(TextError::io(self.path))?;
            consumed += read;
            if read == 0 {
                self.done = true;
                break;
            }
            let whole_line = self.line_start && (bytes.ends_with(b"\n") || read < PIECE);
            self.line_start = bytes.ends_with(b"\n");
            let line = bytes[before..].trim_ascii();
            if whole_line && line == SEPARATOR {
                bytes.truncate(before);
                break;
            }
            let blank = whole_line && line.is_empty() && bytes.len() >= PIECE;
            if self.large && (blank || (bytes.len() >= HARD && self.line_start)) {
                break;
            }
            if self.large && bytes.len() >= HARD {
                self.carry = bytes.split_off(cut(&bytes));
                break;
            }
        }
        self.offset += consumed - self.carry.len();
        let text = utf8(self.path, start, bytes)?;
        Ok((!text.trim().is_empty()).then_some(text))
    }
}

/// Where to cut bytes that hold no line end: after the last blank, else between two characters.
fn cut(bytes: &[u8]) -> usize {
    let blank = bytes.iter().rposition(u8::is_ascii_whitespace).map(|at| at + 1);
    let start_of_character = |&byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    blank.or_else(|| bytes.iter().rposition(start_of_character)).unwrap_or(bytes.len())
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
        assert!(error.contains("a.jsonl:2: column"), "{error}");
        let error = read("a.jsonl", b"{\"text\": \"x\"}\n{\"text\": \"\xFF\"}\n").unwrap_err();
        assert!(error.contains("invalid UTF-8 at byte 24"), "{error}");
        let error = read("b.txt", b"abc\xFFdef").unwrap_err();
        assert!(error.contains("b.txt") && error.contains("byte 3"), "{error}");
    }

    #[test]
    fn a_text_without_lines_is_cut_too_and_a_smaller_one_is_not() {
        for word in ["wörd ", "日本語"] {
            let long = word.repeat((9 << 20) / word.len());
            let docs = read("a.txt", long.as_bytes()).unwrap();
            assert!(docs.len() >= 2 && docs.iter().all(|doc| doc.len() <= HARD + PIECE));
            assert_eq!(docs.concat(), long);
        }
        let book = "line\n\n".repeat(500_000);
        assert_eq!(read("a.txt", book.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn chosen_files_are_one_document_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let text = "one\n<|endoftext|>\ntwo\n\n".repeat(300_000);
        std::fs::write(&path, &text).unwrap();
        let source = DocumentSource::from_files(vec![path.clone(), path]);
        let docs: Vec<_> = source.documents().collect::<Result<_, _>>().unwrap();
        assert_eq!(docs, [text.clone(), text]);
    }

    #[test]
    fn folders_are_walked_in_order_without_hidden_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("b/.git")).unwrap();
        for (name, text) in [("c.txt", "3"), ("b/x.txt", "2"), ("a.txt", "1"), ("b/.git/y", "no")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let source = DocumentSource::open(dir.path()).unwrap();
        let docs: Vec<_> = source.documents().collect::<Result<_, _>>().unwrap();
        assert_eq!(docs, ["1", "2", "3"]);
    }
}
