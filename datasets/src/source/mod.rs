//! Reading the documents of a corpus, one at a time.

mod caught;
mod input;
mod jsonl;
mod listing;
mod parquet;
mod text;

use std::path::{Path, PathBuf};

use block_transformer_files::FileError;

use crate::error::DatasetError;
use input::{Compression, Format, kind, open};
use jsonl::JsonlReader;
use parquet::ParquetReader;
use text::{TextReader, utf8};

pub(crate) use input::BytesRead;
#[cfg(feature = "download")]
pub(crate) use listing::is_pattern;

/// How documents are read from files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The key of the text in a line of JSONL, and the name of the column of a Parquet file.
    pub text_key: String,
    /// The largest document in bytes. In JSONL it is also the limit of a line.
    pub max_document: u64,
}

/// The key `text`, and documents of up to 128 MiB.
impl Default for ReadOptions {
    fn default() -> Self {
        Self { text_key: "text".into(), max_document: 128 << 20 }
    }
}

/// The files that documents are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSource {
    files: Vec<PathBuf>,
    /// Whether each file is one document.
    one_per_file: bool,
    options: ReadOptions,
}

/// A place between two documents of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Position {
    /// The index of the file of the document before the place.
    pub(crate) file: usize,
    /// Documents of this file that are before the place.
    pub(crate) documents: u64,
}

impl DocumentSource {
    /// Opens the documents at `path`: a file, or a folder of files. The files of a folder are read
    /// in the order of their paths; hidden files are ignored.
    ///
    /// The extension of a file is its format:
    ///
    /// - `.jsonl`, `.ndjson`: each line is an object, and its value of the key `text` is a document.
    /// - `.parquet`: each value of the column `text` that is not null is a document.
    /// - anything else: text. It is divided at lines `<|endoftext|>`. A text of more than 4 MiB is
    ///   also divided at the first blank line after each MiB.
    ///
    /// Text and JSONL can be compressed: `.gz` or `.zst` after the extension. `.json.gz` and
    /// `.json.zst` are JSONL.
    ///
    /// # Errors
    /// If the path cannot be read, is a folder without files, or is neither a file nor a folder.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        Ok(Self::of(listing::list(path)?))
    }

    /// Opens several paths, one after the other. A path that does not exist can be a pattern with
    /// `*`, `?`, `**` and `[...]`; its files are read in the order of their paths.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and if a pattern is invalid or matches nothing.
    pub fn open_all(paths: &[impl AsRef<str>]) -> Result<Self, DatasetError> {
        Ok(Self::of(listing::list_all(paths)?))
    }

    fn of(files: Vec<PathBuf>) -> Self {
        Self { files, one_per_file: false, options: ReadOptions::default() }
    }

    /// A source with one document per file, in the given order. The files are text, whatever their
    /// extensions are.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { one_per_file: true, ..Self::of(files) }
    }

    /// Reads the documents by `options`.
    #[must_use]
    pub fn with_options(self, options: ReadOptions) -> Self {
        Self { options, ..self }
    }

    /// The files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How documents are read from the files.
    pub fn options(&self) -> &ReadOptions {
        &self.options
    }

    /// The total size of the files in bytes.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn bytes(&self) -> Result<u64, DatasetError> {
        self.bytes_before(self.files.len())
    }

    /// The total size of the files before the file with the number `file`.
    pub(crate) fn bytes_before(&self, file: usize) -> Result<u64, DatasetError> {
        self.files
            .iter()
            .take(file)
            .map(|path| Ok(std::fs::metadata(path).map_err(FileError::read(path))?.len()))
            .sum()
    }

    /// Reads the documents in order, without those that contain only whitespace. After an error it
    /// continues with the next file.
    pub fn documents(&self) -> impl Iterator<Item = Result<String, DatasetError>> + '_ {
        self.documents_from(Position::default(), BytesRead::default()).map(|(_, text)| text)
    }

    /// Reads the documents after `from`, each with the place after it. Adds to `read`.
    pub(crate) fn documents_from(
        &self,
        from: Position,
        read: BytesRead,
    ) -> impl Iterator<Item = (Position, Result<String, DatasetError>)> + Send + '_ {
        let files = self.files.iter().enumerate().skip(from.file);
        files.flat_map(move |(file, path)| {
            let texts = self.texts(path, &read);
            let texts = texts.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))));
            let skipped = if file == from.file { from.documents } else { 0 };
            let is_text =
                |text: &Result<String, _>| !matches!(text, Ok(text) if text.trim().is_empty());
            let numbered = texts.filter(is_text).zip(1..).skip(skipped as usize);
            numbered.map(move |(text, documents)| (Position { file, documents }, text))
        })
    }

    fn texts(&self, path: &Path, read: &BytesRead) -> Result<Texts, DatasetError> {
        let size = std::fs::metadata(path).map_err(FileError::read(path))?.len();
        if self.one_per_file {
            let limit = self.options.max_document;
            if size > limit {
                let place = path.display().to_string();
                return Err(DatasetError::LongDocument { place, limit });
            }
            let bytes = std::fs::read(path).map_err(FileError::read(path))?;
            read.add(size);
            return Ok(Box::new(std::iter::once(utf8(path, 0, bytes))));
        }
        let (path, options) = (path.to_path_buf(), self.options.clone());
        let (format, compression) = kind(&path);
        Ok(match format {
            Format::Parquet => Box::new(ParquetReader::new(path, options, read)?),
            Format::Jsonl => {
                let input = open(&path, compression, read)?;
                Box::new(JsonlReader::new(path, input, options))
            }
            Format::Text => {
                let input = open(&path, compression, read)?;
                let size = (compression == Compression::None).then_some(size);
                Box::new(TextReader::new(path, input, size, options.max_document)?)
            }
        })
    }
}

type Texts = Box<dyn Iterator<Item = Result<String, DatasetError>> + Send>;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod hostile_tests;
