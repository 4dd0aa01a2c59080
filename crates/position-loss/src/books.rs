//! Books, one text file each.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use block_transformer_datasets::DocumentSource;
use block_transformer_text::Tokenizer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::PositionLossError;

/// A book to evaluate on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// Its path below the folder it was found in, without `.txt`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
}

/// A book's text as a model reads it.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Its tokens; nothing is added at either end.
    pub ids: Vec<u32>,
    /// Bytes of its UTF-8.
    pub bytes: u64,
    /// Runs of characters that are not white space: the words PG19's perplexity is a word of.
    pub words: u64,
}

/// What tells a book from another of its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookIdentity {
    /// Its name.
    pub name: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// SHA-256 of its file.
    pub sha256: String,
}

impl Book {
    /// The books at `path`: of a folder its `.txt` files, sorted, in subfolders too; of a file the
    /// files it names, one a line, from its own folder.
    ///
    /// # Errors
    /// When there is none, or a line names no file or one named before.
    pub fn list(path: &Path) -> Result<Vec<Self>, PositionLossError> {
        let meta = std::fs::metadata(path).map_err(PositionLossError::io(path))?;
        if !meta.is_dir() {
            return listed(path);
        }
        let source = DocumentSource::open(path)?;
        let books =
            source.files().iter().filter(|file| file.extension().is_some_and(|e| e == "txt"));
        let books: Vec<Self> = books
            .map(|file| Self {
                name: name(file.strip_prefix(path).unwrap_or(file)),
                path: file.clone(),
            })
            .collect();
        if books.is_empty() {
            return Err(PositionLossError::content(
                path,
                "no .txt file in the folder; put one a book there",
            ));
        }
        Ok(books)
    }

    /// The books of `files`, named after them.
    pub fn of_files(files: &[PathBuf]) -> Vec<Self> {
        let named = |path: &PathBuf| name(Path::new(path.file_name().unwrap_or_default()));
        files.iter().map(|path| Self { name: named(path), path: path.clone() }).collect()
    }

    /// # Errors
    /// When the file cannot be read.
    pub fn identity(&self) -> Result<BookIdentity, PositionLossError> {
        let bytes = std::fs::read(&self.path).map_err(PositionLossError::io(&self.path))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(BookIdentity { name: self.name.clone(), bytes: bytes.len() as u64, sha256 })
    }

    /// The book in the ids of `tokenizer`. A file of white space has none.
    ///
    /// # Errors
    /// When the file is not UTF-8, or its tokens do not decode to it again: bits per byte would be
    /// those of another text.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<Tokens, PositionLossError> {
        let source = DocumentSource::from_files(vec![self.path.clone()]);
        let text = source.documents().next().transpose()?.unwrap_or_default();
        let ids = tokenizer.encode(&text)?;
        if !tokenizer.decodes_to(&ids, &text) {
            let reason = "the tokenizer does not give back the text it was given; evaluate with a \
                tokenizer that has an id for every byte";
            return Err(PositionLossError::content(&self.path, reason));
        }
        let words = text.split_whitespace().count() as u64;
        Ok(Tokens { ids, bytes: text.len() as u64, words })
    }
}

/// A book's name: its path without `.txt`.
fn name(path: &Path) -> String {
    let name = path.to_string_lossy().into_owned();
    name.strip_suffix(".txt").map(String::from).unwrap_or(name)
}

/// The books a list names.
fn listed(path: &Path) -> Result<Vec<Book>, PositionLossError> {
    let remedy = "give a folder of .txt files, or a list of files, one a line";
    let bytes = std::fs::read(path).map_err(PositionLossError::io(path))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        PositionLossError::content(path, format!("not a list of books (invalid UTF-8); {remedy}"))
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut seen = HashSet::new();
    let mut books = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let place = PathBuf::from(format!("{}:{}", path.display(), i + 1));
        let book = Book { name: name(Path::new(line)), path: folder.join(line) };
        if !book.path.is_file() {
            let shown: String = line.chars().take(80).collect();
            let reason = format!("there is no file {shown:?} beside the list; {remedy}");
            return Err(PositionLossError::content(&place, reason));
        }
        if !seen.insert(book.path.clone()) {
            return Err(PositionLossError::content(
                &place,
                format!("{line} is listed twice; remove one"),
            ));
        }
        books.push(book);
    }
    if books.is_empty() {
        return Err(PositionLossError::content(path, format!("the list is empty; {remedy}")));
    }
    Ok(books)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    fn error(result: Result<impl std::fmt::Debug, PositionLossError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_folder_is_its_text_files_and_a_list_the_files_it_names() {
        let dir = folder(&[
            ("b.txt", b"two"),
            ("a.txt", b"one"),
            ("a.txt.sha256", b"beef"),
            ("test/c.txt", b"three"),
            ("list", b"test/c.txt\n\n a.txt \n"),
        ]);
        let names = |path: &Path| -> Vec<String> {
            Book::list(path).unwrap().into_iter().map(|book| book.name).collect()
        };
        assert_eq!(names(dir.path()), ["a", "b", "test/c"]);
        assert_eq!(names(&dir.path().join("list")), ["test/c", "a"]);
    }

    #[test]
    fn folders_and_lists_without_books_are_named() {
        let dir = folder(&[
            ("empty/README", b"none"),
            ("lost", b"a.txt\nmissing.txt\n"),
            ("twice", b"a.txt\na.txt\n"),
            ("blank", b"\n"),
            ("a.txt", b"a book, not a list"),
        ]);
        let at = |name: &str| error(Book::list(&dir.path().join(name)));
        assert!(at("empty").contains("no .txt file"), "{}", at("empty"));
        assert!(at("lost").contains("lost:2") && at("lost").contains("missing.txt"));
        assert!(at("twice").contains("twice:2"));
        assert!(at("blank").contains("empty"));
        assert!(at("a.txt").contains("a folder of .txt files"));
        assert!(at("nowhere").contains("nowhere"));
    }

    #[test]
    fn words_bytes_and_tokens_are_counted() {
        let dir = folder(&[("a.txt", "Two\n  wörds\n".as_bytes()), ("b.txt", b" \n")]);
        let books = Book::list(dir.path()).unwrap();
        let tokens = books[0].tokens(&Tokenizer::Bytes).unwrap();
        assert_eq!((tokens.ids.len(), tokens.bytes, tokens.words), (13, 13, 2));
        assert!(books[1].tokens(&Tokenizer::Bytes).unwrap().ids.is_empty());
    }

    #[test]
    fn invalid_utf8_and_texts_that_do_not_come_back_are_named() {
        let dir = folder(&[("a.txt", b"caf\xE9"), ("b.txt", b"one<|endoftext|>two")]);
        let books = Book::list(dir.path()).unwrap();
        let invalid = error(books[0].tokens(&Tokenizer::Bytes));
        assert!(invalid.contains("a.txt") && invalid.contains("byte 3"), "{invalid}");
        let bpe = Tokenizer::train_bpe(["one two".to_string()].into_iter(), 260).unwrap();
        let lost = error(books[1].tokens(&bpe));
        assert!(lost.contains("b.txt") && lost.contains("give back"), "{lost}");
    }
}
