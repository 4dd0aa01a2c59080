//! The files of evaluation tasks.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use crate::{DatasetError, Download, fetch};

/// A file an evaluation task reads.
#[derive(Clone, Copy, Debug)]
pub struct TaskFile {
    /// Its name in the folder of task files.
    pub file: &'static str,
    /// Where it comes from.
    pub source: TaskSource,
}

/// How a task file is had.
#[derive(Clone, Copy, Debug)]
pub enum TaskSource {
    /// Fetched, and checked.
    Url {
        /// The address, of one version where it has several.
        url: &'static str,
        /// What the file must hash to.
        sha256: &'static str,
    },
    /// By hand, in this way.
    ByHand(&'static str),
}

/// Every task file.
pub fn task_files() -> &'static [TaskFile] {
    &[
        TaskFile {
            file: "hellaswag_val.jsonl",
            source: TaskSource::Url {
                url: "https://raw.githubusercontent.com/rowanz/hellaswag/a29ff8e9a04bba4bd6588223785ce105328adc57/data/hellaswag_val.jsonl",
                sha256: "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
            },
        },
        TaskFile {
            file: "piqa_valid.jsonl",
            source: TaskSource::Url {
                url: "https://raw.githubusercontent.com/ybisk/ybisk.github.io/21edab439af693b961be2f069e8690a88d3b4e37/piqa/data/valid.jsonl",
                sha256: "93503cc97c679e459b065c3d13e848282e44b2a25213985bed3e5d458abef72d",
            },
        },
        TaskFile {
            file: "piqa_valid-labels.lst",
            source: TaskSource::Url {
                url: "https://raw.githubusercontent.com/ybisk/ybisk.github.io/21edab439af693b961be2f069e8690a88d3b4e37/piqa/data/valid-labels.lst",
                sha256: "b4192dc3a2a0363d9d60ccf79800cbbe2f32ebb17726efdde6970e0b8131bceb",
            },
        },
        TaskFile {
            file: "lambada_test.jsonl",
            source: TaskSource::Url {
                url: "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
                sha256: "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
            },
        },
        TaskFile {
            file: "ARC-Easy-test.jsonl",
            source: TaskSource::ByHand(
                "take ARC-Easy-Test.jsonl out of the Allen Institute's ARC-V1-Feb2018.zip",
            ),
        },
        TaskFile {
            file: "wiki.test.raw",
            source: TaskSource::ByHand("take it out of wikitext-2-raw-v1.zip"),
        },
        TaskFile {
            file: "winogrande_xl_dev.jsonl",
            source: TaskSource::ByHand(
                "take dev.jsonl out of the Allen Institute's winogrande_1.1.zip",
            ),
        },
    ]
}

/// The path of the task file `name` in `cache`, fetched if it is not there.
///
/// # Errors
/// When it is not there and cannot be fetched, or is another file than the recipe means.
pub fn task_file(
    name: &str,
    cache: &Path,
    progress: &ProgressBar,
) -> Result<PathBuf, DatasetError> {
    let path = cache.join(name);
    match task_files().iter().find(|known| known.file == name).map(|known| known.source) {
        Some(TaskSource::Url { url, sha256 }) => {
            fetch(&Download { url, file: name, sha256: Some(sha256) }, cache, progress)
        }
        _ if path.exists() => Ok(path),
        Some(TaskSource::ByHand(how)) => Err(DatasetError::NotFetched { path, how }),
        None => Err(DatasetError::NotFetched { path, how: "no recipe knows it" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_not_fetched_are_read_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let find = || task_file("wiki.test.raw", dir.path(), &ProgressBar::hidden());
        let error = find().unwrap_err().to_string();
        assert!(error.contains("wiki.test.raw") && error.contains("raw-v1.zip"), "{error}");
        std::fs::write(dir.path().join("wiki.test.raw"), " = A = \n").unwrap();
        assert_eq!(find().unwrap(), dir.path().join("wiki.test.raw"));
    }

    #[test]
    fn another_file_than_the_recipe_s_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lambada_test.jsonl"), "{}\n").unwrap();
        let found = task_file("lambada_test.jsonl", dir.path(), &ProgressBar::hidden());
        assert!(matches!(found, Err(DatasetError::Checksum { .. })), "{found:?}");
    }
}
