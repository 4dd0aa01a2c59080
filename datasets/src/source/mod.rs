//! Reading the documents of a corpus, one at a time.

mod jsonl;
mod text;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use block_transformer_files::FileError;
use walkdir::WalkDir;

use crate::error::DatasetError;
use text::{TextReader, utf8};

/// Text files up to this size, in bytes, are divided at separators only.
const LARGE_FILE: u64 = 4 << 20;

/// The files that documents are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSource {
    files: Vec<PathBuf>,
    /// Whether each file is one document.
    one_per_file: bool,
}

impl DocumentSource {
    /// Opens the documents at `path`: a text file, a `.jsonl` file, or a folder of such files. The
    /// files of a folder are read in the order of their paths; hidden files are ignored.
    ///
    /// A text file is divided at lines `<|endoftext|>`. A file of more than 4 MiB is also divided
    /// at the first blank line after each MiB. Each line of a `.jsonl` file is an object, and its
    /// field `text` is a document.
    ///
    /// # Errors
    /// If the path cannot be read, is a folder without files, or is neither a file nor a folder.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let meta = std::fs::metadata(path).map_err(FileError::read(path))?;
        if !meta.is_dir() && !meta.is_file() {
            return Err(DatasetError::NotAFile(path.into()));
        }
        if meta.is_file() {
            return Ok(Self { files: vec![path.into()], one_per_file: false });
        }
        let visible = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
        };
        let mut files = Vec::new();
        let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
        for entry in walk.into_iter().filter_entry(visible) {
            let entry = entry.map_err(|e| FileError::read(path)(e.into()))?;
            if entry.file_type().is_file() {
                files.push(entry.into_path());
            }
        }
        if files.is_empty() {
            return Err(DatasetError::NoFile(path.into()));
        }
        Ok(Self { files, one_per_file: false })
    }

    /// A source with one document per file, in the given order. Files can have any size and
    /// extension.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { files, one_per_file: true }
    }

    /// The files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The total size of the files in bytes.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn bytes(&self) -> Result<u64, DatasetError> {
        self.files
            .iter()
            .map(|path| Ok(std::fs::metadata(path).map_err(FileError::read(path))?.len()))
            .sum()
    }

    /// Reads the documents in order, without those that contain only whitespace. After an error it
    /// continues with the next file.
    pub fn documents(&self) -> impl Iterator<Item = Result<String, DatasetError>> + '_ {
        let texts = self.files.iter().flat_map(|path| {
            self.file(path).unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
        });
        texts.filter(|text| !matches!(text, Ok(text) if text.trim().is_empty()))
    }

    fn file<'a>(&self, path: &'a Path) -> Result<DocumentIter<'a>, DatasetError> {
        if self.one_per_file {
            let bytes = std::fs::read(path).map_err(FileError::read(path))?;
            return Ok(Box::new(std::iter::once(utf8(path, 0, bytes))));
        }
        let file = File::open(path).map_err(FileError::read(path))?;
        if path.extension().is_some_and(|e| e == "jsonl") {
            return Ok(Box::new(jsonl::texts(path, BufReader::new(file))));
        }
        let large = file.metadata().map_err(FileError::read(path))?.len() > LARGE_FILE;
        Ok(Box::new(TextReader::new(path, BufReader::new(file), large)))
    }
}

type DocumentIter<'a> = Box<dyn Iterator<Item = Result<String, DatasetError>> + 'a>;

#[cfg(test)]
mod tests {
    use super::text::MAX_DOCUMENT;
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
    fn errors_name_the_line_or_the_byte() {
        let docs = read("a.jsonl", b"{\"text\": \"x\"}\n\n{\"text\": \"y\"}\n").unwrap();
        assert_eq!(docs, ["x", "y"]);
        let cases: [(&str, &[u8], &str); 3] = [
            ("a.jsonl", b"{\"text\": \"x\"}\n{\"txt\": 1}\n", "a.jsonl:2: column"),
            ("a.jsonl", b"{\"text\": \"x\"}\n{\"text\": \"\xFF\"}\n", "invalid UTF-8 at byte 24"),
            ("b.txt", b"abc\xFFdef", "b.txt: invalid UTF-8 at byte 3"),
        ];
        for (name, content, expected) in cases {
            let error = read(name, content).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_large_files_are_divided_without_separators() {
        for word in ["wörd ", "日本語"] {
            let long = word.repeat((9 << 20) / word.len());
            let docs = read("a.txt", long.as_bytes()).unwrap();
            assert!(docs.len() >= 2 && docs.iter().all(|doc| doc.len() <= MAX_DOCUMENT));
            assert_eq!(docs.concat(), long);
        }
        let small = "line\n\n".repeat(500_000);
        assert_eq!(read("a.txt", small.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn each_of_the_given_files_is_one_document() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let text = "one\n<|endoftext|>\ntwo\n\n".repeat(300_000);
        std::fs::write(&path, &text).unwrap();
        let source = DocumentSource::from_files(vec![path.clone(), path]);
        let docs: Vec<_> = source.documents().collect::<Result<_, _>>().unwrap();
        assert_eq!(docs, [text.clone(), text]);
    }

    #[test]
    fn folders_are_read_in_order_without_hidden_files() {
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
