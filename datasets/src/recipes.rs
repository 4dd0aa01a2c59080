//! Named corpora, and the files of evaluation tasks.

use std::path::{Path, PathBuf};

use block_transformer_files::nearest;

use crate::dependencies::{MAX_BYTES, dependencies};
use crate::download::{Download, fetch};
use crate::error::DatasetError;
use crate::source::{DocumentSource, is_pattern};
use crate::tasks::{TaskFile, TaskSource};

const PG19_TEST: &str = include_str!("../recipes/pg19_test.txt");

/// The names of the recipes; the README describes the corpora and their licences.
const NAMES: [&str; 4] = ["dependencies", "tinyshakespeare", "pg19-test", "pg19-train"];

const TINYSHAKESPEARE: Download = Download {
    url: "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    file: "tinyshakespeare.txt",
    sha256: Some("86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
};

/// The folder of the books of [`PG19_TEST`]. Their names are `ID.txt`.
const PG19_TEST_URL: &str = "https://storage.googleapis.com/deepmind-gutenberg/test/";

const PG19_TRAIN: &str = "copy the 28,602 books, about 11 GB, with `gcloud storage cp -r \
     gs://deepmind-gutenberg/train DIR`, and use DIR as the corpus";

/// Returns the documents of `corpus`, which is an existing path, a pattern, or the name of a recipe. The files
/// of a recipe are downloaded to the folder `cache`. Calls `progress` with the number of bytes of a
/// file that were received, and the total.
///
/// # Errors
/// If `corpus` is neither, or its files cannot be downloaded or read.
pub fn resolve(
    corpus: &str,
    cache: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<DocumentSource, DatasetError> {
    let path = Path::new(corpus);
    if path.exists() {
        return DocumentSource::open(path);
    }
    match corpus {
        "dependencies" => dependencies(MAX_BYTES),
        "tinyshakespeare" => {
            Ok(DocumentSource::from_files(vec![fetch(&TINYSHAKESPEARE, cache, progress)?]))
        }
        "pg19-test" => {
            let folder = cache.join("pg19-test");
            let book = |id: &str| {
                let file = format!("{id}.txt");
                let url = format!("{PG19_TEST_URL}{file}");
                fetch(&Download { url: &url, file: &file, sha256: None }, &folder, progress)
            };
            Ok(DocumentSource::from_files(PG19_TEST.lines().map(book).collect::<Result<_, _>>()?))
        }
        "pg19-train" => Err(DatasetError::ByHand { name: corpus.into(), instructions: PG19_TRAIN }),
        _ if is_pattern(corpus) => DocumentSource::open_all(&[corpus]),
        // a name with a separator or an extension is treated as a path
        _ if path.components().count() > 1 || path.extension().is_some() => {
            DocumentSource::open(path)
        }
        _ => Err(DatasetError::UnknownRecipe {
            name: corpus.into(),
            nearest: nearest(corpus, NAMES).unwrap_or_default(),
            known: NAMES.join(", "),
        }),
    }
}

/// Returns the path of `file` in the folder `cache`, and downloads the file if it is not there. Calls
/// `progress` with the bytes received and the total.
///
/// # Errors
/// If the file is missing and cannot be downloaded, or has another SHA-256.
pub fn task_file(
    file: &TaskFile,
    cache: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PathBuf, DatasetError> {
    let path = cache.join(file.name);
    match file.source {
        TaskSource::Url { url, sha256 } => {
            fetch(&Download { url, file: file.name, sha256: Some(sha256) }, cache, progress)
        }
        TaskSource::ByHand(_) if path.exists() => Ok(path),
        TaskSource::ByHand(instructions) => {
            Err(DatasetError::ByHand { name: path.display().to_string(), instructions })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_nearest_recipe_or_the_missing_path() {
        let error = |name| resolve(name, Path::new("."), &mut |_, _| {}).unwrap_err().to_string();
        assert!(error("tinyshakespere").contains("did you mean `tinyshakespeare`"));
        assert!(error("lost/books.txt").contains("lost/books.txt"));
        assert!(error("pg19-train").contains("use DIR as the corpus"));
    }

    #[test]
    fn the_test_split_of_pg19_has_a_hundred_books() {
        let mut ids: Vec<u32> = PG19_TEST.lines().map(|id| id.parse().unwrap()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn an_existing_path_takes_precedence_over_recipes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\": \"x\"}\n").unwrap();
        let source = resolve(&path.display().to_string(), dir.path(), &mut |_, _| {}).unwrap();
        let texts: Vec<_> = source.documents().collect::<Result<_, _>>().unwrap();
        assert_eq!(texts, ["x"]);
    }

    #[test]
    fn a_file_that_is_not_downloaded_is_found_or_explained() {
        let dir = tempfile::tempdir().unwrap();
        let find = || task_file(&crate::tasks::WIKITEXT, dir.path(), &mut |_, _| {});
        let error = find().unwrap_err().to_string();
        assert!(error.contains("wiki.test.raw") && error.contains("raw-v1.zip"), "{error}");
        std::fs::write(dir.path().join("wiki.test.raw"), " = A = \n").unwrap();
        assert_eq!(find().unwrap(), dir.path().join("wiki.test.raw"));
    }

    #[test]
    fn a_file_with_another_checksum_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lambada_test.jsonl"), "{}\n").unwrap();
        let found = task_file(&crate::tasks::LAMBADA, dir.path(), &mut |_, _| {});
        assert!(matches!(found, Err(DatasetError::Checksum { .. })), "{found:?}");
    }
}
