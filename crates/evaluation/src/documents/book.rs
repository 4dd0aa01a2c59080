//! Books, one text file each.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use block_transformer_files::FileError;
use block_transformer_text::Tokenizer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walkdir::{DirEntry, WalkDir};

use crate::error::EvalError;

/// A file with the text of a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// The path without `.txt`, relative to the folder of the books or to the folder of their list.
    pub name: String,
    /// The book's file.
    pub path: PathBuf,
}

/// The identity of a book. A changed file has a different identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookIdentity {
    /// The book's name.
    pub name: String,
    /// Bytes of the book's file.
    pub bytes: u64,
    /// SHA-256 of the book's file.
    pub sha256: String,
}

/// A book's text.
#[derive(Clone, Debug)]
pub struct BookText {
    /// The book's file.
    pub path: PathBuf,
    /// The identity of the file that was read.
    pub identity: BookIdentity,
    /// The text; empty when the file has white space only.
    pub text: String,
}

impl Book {
    /// Lists the books at `path`. If `path` is a folder, the books are the `.txt` files in the
    /// folder and its subfolders, sorted by path; hidden files and folders are skipped. If `path`
    /// is a file, it is a list of books: one path per line, relative to the folder of the list.
    ///
    /// # Errors
    /// When there is no book, or a line of a list names a file that does not exist or is already
    /// listed.
    pub fn list(path: &Path) -> Result<Vec<Self>, EvalError> {
        let meta = std::fs::metadata(path).map_err(FileError::read(path))?;
        if !meta.is_dir() {
            return listed(path);
        }
        let visible = |entry: &DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
        };
        let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
        let mut books = Vec::new();
        for entry in walk.into_iter().filter_entry(visible) {
            let entry = entry.map_err(|e| FileError::read(path)(e.into()))?;
            let file = entry.path();
            if entry.file_type().is_file() && file.extension().is_some_and(|e| e == "txt") {
                let name = name(file.strip_prefix(path).unwrap_or(file));
                books.push(Self { name, path: file.into() });
            }
        }
        match books.is_empty() {
            true => Err(EvalError::content(
                path,
                format!("there is no .txt file in the folder; {REMEDY}"),
            )),
            false => Ok(books),
        }
    }

    /// Returns one book per file. The name of a book is the name of its file without `.txt`.
    pub fn of_files(files: &[PathBuf]) -> Vec<Self> {
        let named = |path: &PathBuf| name(Path::new(path.file_name().unwrap_or_default()));
        files.iter().map(|path| Self { name: named(path), path: path.clone() }).collect()
    }

    /// Reads the book.
    ///
    /// # Errors
    /// When the file cannot be read or is not UTF-8.
    pub fn read(&self) -> Result<BookText, EvalError> {
        let bytes = std::fs::read(&self.path).map_err(FileError::read(&self.path))?;
        let identity = BookIdentity {
            name: self.name.clone(),
            bytes: bytes.len() as u64,
            sha256: format!("{:x}", Sha256::digest(&bytes)),
        };
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            let reason = format!("invalid UTF-8 at byte {at}; convert the file to UTF-8");
            EvalError::content(&self.path, reason)
        })?;
        let text = if text.trim().is_empty() { String::new() } else { text };
        Ok(BookText { path: self.path.clone(), identity, text })
    }
}

impl BookText {
    /// Returns the token ids of the text, without special ids at either end.
    ///
    /// # Errors
    /// When the tokenizer fails, or the tokens do not decode to the text. The bits per byte of such
    /// tokens would describe a different text.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, EvalError> {
        let ids = tokenizer.encode(&self.text)?;
        match tokenizer.decodes_to(&ids, &self.text) {
            true => Ok(ids),
            false => Err(EvalError::content(
                &self.path,
                "the tokens of the book do not decode to its text; evaluate with a tokenizer that \
                 has an id for every byte",
            )),
        }
    }

    /// Number of words separated by white space, the unit of PG19's word perplexity.
    pub fn words(&self) -> u64 {
        self.text.split_whitespace().count() as u64
    }
}

/// A book's name: its path without `.txt`.
fn name(path: &Path) -> String {
    let name = path.to_string_lossy();
    name.strip_suffix(".txt").unwrap_or(&name).into()
}

/// What to give as books.
const REMEDY: &str = "give a folder of .txt files, or a list with the path of one file per line";

/// The books of a list.
fn listed(path: &Path) -> Result<Vec<Book>, EvalError> {
    let bytes = std::fs::read(path).map_err(FileError::read(path))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        EvalError::content(path, format!("not a list of books (invalid UTF-8); {REMEDY}"))
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut seen = HashSet::new();
    let mut books = Vec::new();
    let lines = text.lines().map(str::trim).enumerate();
    for (i, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let invalid = |reason| Err(EvalError::line(path, i + 1, reason));
        let book = Book { name: name(Path::new(line)), path: folder.join(line) };
        if !book.path.is_file() {
            let shown: String = line.chars().take(80).collect();
            return invalid(format!("there is no file {shown:?} in the list's folder; {REMEDY}"));
        }
        if !seen.insert(book.path.clone()) {
            return invalid(format!("{line} is listed twice; remove one"));
        }
        books.push(book);
    }
    match books.is_empty() {
        true => Err(EvalError::content(path, format!("the list is empty; {REMEDY}"))),
        false => Ok(books),
    }
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

    #[test]
    fn a_folder_has_its_text_files_and_a_list_the_files_it_names() {
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
        let at = |name: &str| Book::list(&dir.path().join(name)).unwrap_err().to_string();
        for (name, says) in [
            ("empty", "no .txt file"),
            ("lost", "lost:2: there is no file \"missing.txt\""),
            ("twice", "twice:2"),
            ("blank", "empty"),
            ("a.txt", "a folder of .txt files"),
            ("nowhere", "nowhere"),
        ] {
            assert!(at(name).contains(says), "{}", at(name));
        }
    }

    #[test]
    fn words_bytes_and_tokens_are_counted() {
        let dir = folder(&[("a.txt", "Two\n  wörds\n".as_bytes()), ("b.txt", b" \n")]);
        let books = Book::list(dir.path()).unwrap();
        let [text, blank] = [&books[0], &books[1]].map(|book| book.read().unwrap());
        let tokens = |text: &BookText| text.tokens(&Tokenizer::Bytes).unwrap().len();
        assert_eq!((tokens(&text), text.text.len(), text.words()), (13, 13, 2));
        assert_eq!((tokens(&blank), blank.words()), (0, 0));
    }

    #[test]
    fn invalid_utf8_and_texts_that_tokens_do_not_decode_to_are_named() {
        let dir = folder(&[("a.txt", b"caf\xE9"), ("b.txt", b"one<|endoftext|>two")]);
        let books = Book::list(dir.path()).unwrap();
        let invalid = books[0].read().unwrap_err().to_string();
        assert!(invalid.contains("a.txt") && invalid.contains("byte 3"), "{invalid}");
        let bpe = Tokenizer::train_bpe(["one two".to_string()].into_iter(), 260).unwrap();
        let lost = books[1].read().unwrap().tokens(&bpe).unwrap_err().to_string();
        assert!(lost.contains("b.txt") && lost.contains("do not decode to its text"), "{lost}");
    }
}
