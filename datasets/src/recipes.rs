//! Named corpora.

use std::path::Path;

use crate::dependencies::{MAX_BYTES, dependencies};
use crate::download::{Download, fetch};
use crate::error::DatasetError;
use crate::source::DocumentSource;

/// A named corpus.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// Its content and size, in one line.
    pub summary: &'static str,
    /// Its publisher.
    pub origin: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// Its documents, which are divided into training and validation documents.
    pub documents: &'static str,
    method: Method,
}

/// The way to obtain the files of a recipe.
#[derive(Clone, Copy, Debug)]
enum Method {
    Dependencies,
    File(Download<'static>),
    /// The files `ID.txt` of a folder.
    Books {
        url: &'static str,
        ids: &'static str,
        folder: &'static str,
    },
    ByHand(&'static str),
}

const PG19_TEST: &str = include_str!("../recipes/pg19_test.txt");

/// Returns all recipes.
pub fn recipes() -> &'static [Recipe] {
    &[
        Recipe {
            name: "dependencies",
            summary: "sources and documentation of this project's locked dependencies, up to 12 MB; needs no network after a build",
            origin: "the packages in Cargo.lock",
            licence: "that of each package",
            documents: "one per file",
            method: Method::Dependencies,
        },
        Recipe {
            name: "tinyshakespeare",
            summary: "1.1 MB of Shakespeare",
            origin: "karpathy/char-rnn",
            licence: "public domain text in a repository under the MIT licence",
            documents: "one; its end is the validation text",
            method: Method::File(Download {
                url: "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                file: "tinyshakespeare.txt",
                sha256: Some("86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
            }),
        },
        Recipe {
            name: "pg19-test",
            summary: "the 100 books of the test split of PG19; their checksums are those of the first download, because none are published",
            origin: "the bucket deepmind-gutenberg on Google Cloud Storage",
            licence: "public domain",
            documents: "one per book; all are meant for evaluation",
            method: Method::Books {
                url: "https://storage.googleapis.com/deepmind-gutenberg/test/",
                ids: PG19_TEST,
                folder: "pg19-test",
            },
        },
        Recipe {
            name: "pg19-train",
            summary: "the 28,602 books of the training split of PG19, about 11 GB; not downloaded automatically",
            origin: "the bucket deepmind-gutenberg on Google Cloud Storage",
            licence: "public domain",
            documents: "one per book",
            method: Method::ByHand(
                "copy the 28,602 books, about 11 GB, with `gcloud storage cp -r \
                 gs://deepmind-gutenberg/train DIR`, and use DIR as the corpus",
            ),
        },
    ]
}

/// Returns the documents of `corpus`: an existing path, or the name of a recipe, whose files are
/// downloaded to the folder `cache`. Calls `progress` with the bytes of a file received and the
/// total.
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
    let Some(recipe) = recipes().iter().find(|recipe| recipe.name == corpus) else {
        // a name with a separator or an extension is meant as a path
        if path.components().count() > 1 || path.extension().is_some() {
            return DocumentSource::open(path);
        }
        return Err(unknown(corpus));
    };
    match &recipe.method {
        Method::Dependencies => dependencies(MAX_BYTES),
        Method::File(download) => {
            Ok(DocumentSource::from_files(vec![fetch(download, cache, progress)?]))
        }
        Method::Books { url, ids, folder } => {
            let book = |id: &str| {
                let file = format!("{id}.txt");
                let download = Download { url: &format!("{url}{file}"), file: &file, sha256: None };
                fetch(&download, &cache.join(folder), progress)
            };
            Ok(DocumentSource::from_files(ids.lines().map(book).collect::<Result<_, _>>()?))
        }
        Method::ByHand(instructions) => {
            Err(DatasetError::ByHand { name: recipe.name.into(), instructions })
        }
    }
}

fn unknown(name: &str) -> DatasetError {
    let names = || recipes().iter().map(|recipe| recipe.name);
    let similarity = |known: &&str| (strsim::jaro_winkler(name, known) * 1e6) as u64;
    DatasetError::UnknownRecipe {
        name: name.into(),
        nearest: names().max_by_key(similarity).unwrap_or_default(),
        known: names().collect::<Vec<_>>().join(", "),
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
    fn the_test_split_has_a_hundred_books() {
        let mut ids: Vec<u32> = PG19_TEST.lines().map(|id| id.parse().unwrap()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn an_existing_path_takes_precedence_over_recipes() {
        let known = ["dependencies", "tinyshakespeare", "pg19-test", "pg19-train"];
        assert!(recipes().iter().map(|recipe| recipe.name).eq(known));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\": \"x\"}\n").unwrap();
        let source = resolve(&path.display().to_string(), dir.path(), &mut |_, _| {}).unwrap();
        let texts: Vec<_> = source.documents().collect::<Result<_, _>>().unwrap();
        assert_eq!(texts, ["x"]);
    }
}
