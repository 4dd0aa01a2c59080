//! The recipes, and what `--corpus` means.

use std::path::Path;

use block_transformer_text::DocumentSource;
use indicatif::ProgressBar;

use crate::dependencies::MAX_BYTES;
use crate::{DatasetError, Download, dependencies, fetch};

/// A named corpus.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// What `--corpus` takes.
    pub name: &'static str,
    /// One line on what it is and how large.
    pub summary: &'static str,
    /// Where it comes from.
    pub origin: &'static str,
    /// The address it is fetched from, where it is fetched.
    pub url: Option<&'static str>,
    /// What the file must hash to, where that is known.
    pub sha256: Option<&'static str>,
    /// Its licence.
    pub licence: &'static str,
    /// How it comes apart into training and validation text.
    pub split: &'static str,
}

const PG19_TEST: &str = include_str!("../recipes/pg19_test.txt");

/// Where the books of [`PG19_TEST`] lie, as `ID.txt`.
const PG19_TEST_URL: &str = "https://storage.googleapis.com/deepmind-gutenberg/test/";

const PG19_TRAIN: &str = "28,602 books of about 11 GB, which are not fetched unasked; copy them with \
    `gcloud storage cp -r gs://deepmind-gutenberg/train DIR` and give --corpus DIR";

const TINYSHAKESPEARE: Download = Download {
    url: "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    file: "tinyshakespeare.txt",
    sha256: Some("86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
};

/// Every recipe.
pub fn recipes() -> &'static [Recipe] {
    &[
        Recipe {
            name: "dependencies",
            summary: "sources and documentation of this project's locked dependencies, up to 12 MB; needs no network once they are built",
            origin: "the packages Cargo.lock pins, as cargo keeps them",
            url: None,
            sha256: None,
            licence: "each package's own",
            split: "by file",
        },
        Recipe {
            name: "tinyshakespeare",
            summary: "1.1 MB of Shakespeare",
            origin: "karpathy/char-rnn",
            url: Some(TINYSHAKESPEARE.url),
            sha256: TINYSHAKESPEARE.sha256,
            licence: "public domain text, MIT repository",
            split: "one document: its end is the validation text",
        },
        Recipe {
            name: "pg19-test",
            summary: "the 100 books of PG19's test split; checksums are not published: those of the first download are kept",
            origin: "deepmind-gutenberg bucket on Google Cloud Storage",
            url: Some(PG19_TEST_URL),
            sha256: None,
            licence: "public domain",
            split: "by book; all of it is meant for evaluation",
        },
        Recipe {
            name: "pg19-train",
            summary: "the 28,602 books of PG19's training split, about 11 GB; on request: says how to get it",
            origin: "deepmind-gutenberg bucket on Google Cloud Storage",
            url: None,
            sha256: None,
            licence: "public domain",
            split: "by book",
        },
    ]
}

/// The documents of `corpus`: a path if there is one of that name, else a recipe, whose files are
/// kept in `cache`.
///
/// # Errors
/// When it is neither, or its files cannot be had.
pub fn resolve(
    corpus: &str,
    cache: &Path,
    progress: &ProgressBar,
) -> Result<DocumentSource, DatasetError> {
    let path = Path::new(corpus);
    if path.exists() {
        return Ok(DocumentSource::open(path)?);
    }
    match corpus {
        "dependencies" => dependencies(MAX_BYTES),
        "tinyshakespeare" => {
            let path = fetch(&TINYSHAKESPEARE, cache, progress)?;
            Ok(DocumentSource::from_files(vec![path]))
        }
        "pg19-test" => {
            let folder = cache.join("pg19-test");
            let one = |id: &str| {
                let file = format!("{id}.txt");
                let url = format!("{PG19_TEST_URL}{file}");
                fetch(&Download { url: &url, file: &file, sha256: None }, &folder, progress)
            };
            let files = PG19_TEST.lines().map(one).collect::<Result<_, _>>()?;
            Ok(DocumentSource::from_files(files))
        }
        "pg19-train" => Err(DatasetError::OnRequest { name: "pg19-train", reason: PG19_TRAIN }),
        // a name with a separator or an extension was meant as a path
        _ if path.components().count() > 1 || path.extension().is_some() => {
            Ok(DocumentSource::open(path)?)
        }
        _ => {
            let names = recipes().iter().map(|recipe| recipe.name);
            let likeness = |name: &&str| (strsim::jaro_winkler(corpus, name) * 1e6) as u64;
            let nearest = names.clone().max_by_key(likeness).unwrap_or_default();
            Err(DatasetError::Unknown {
                name: corpus.into(),
                nearest: nearest.into(),
                known: names.collect::<Vec<_>>().join(", "),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_get_the_nearest_recipe_and_lost_paths_an_io_error() {
        let bar = ProgressBar::hidden();
        let error = |name| resolve(name, Path::new("."), &bar).unwrap_err().to_string();
        assert!(error("tinyshakespere").contains("did you mean `tinyshakespeare`"));
        assert!(error("lost/books.txt").starts_with("lost/books.txt:"));
        assert!(error("pg19-train").contains("--corpus DIR"));
    }

    #[test]
    fn the_test_split_has_a_hundred_books() {
        let mut ids: Vec<u32> = PG19_TEST.lines().map(|id| id.parse().unwrap()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn every_recipe_is_known_and_a_path_goes_before_them() {
        let known = ["dependencies", "tinyshakespeare", "pg19-test", "pg19-train"];
        assert!(recipes().iter().map(|recipe| recipe.name).eq(known));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\": \"x\"}\n").unwrap();
        let bar = ProgressBar::hidden();
        let source = resolve(&path.display().to_string(), dir.path(), &bar).unwrap();
        let texts: Vec<_> = source.documents().collect::<Result<_, _>>().unwrap();
        assert_eq!(texts, ["x"]);
    }
}
